//! What electricity answers take, by the time in which requests were under way. Where several are, they share, as in
//! [`times`](super::times).

use std::collections::HashMap;

use super::answers::{Group, Groups, Summary};
use super::filter::Filter;
use super::reader::{AskError, Reader};

impl Reader {
    /// The summary with what electricity took, where that is to be told.
    pub fn summary_with_power(&self, filter: &Filter, now_ms: i64) -> Result<Summary, AskError> {
        let summary = self.summary(filter)?;
        let Some(power) = &self.power else { return Ok(summary) };
        let busy = self.busy_us(filter, None, now_ms)?;
        let all = busy.map(|busy| busy.values().sum());
        Ok(Summary { electricity: Some(power.beside(summary.cost.as_ref(), all)), ..summary })
    }

    /// The same of groups. One that had none of the time, for it ended before the range, took none.
    pub fn groups_with_power(&self, groups: Groups, filter: &Filter, now_ms: i64) -> Result<Groups, AskError> {
        let Some(power) = &self.power else { return Ok(groups) };
        let by = groups.by;
        let busy = self.busy_us(filter, Some(by), now_ms)?;
        let with_power = |Group { name, summary }: Group| {
            let of_group = |busy: &HashMap<String, i64>| busy.get(name.as_deref().unwrap_or_default()).copied();
            let us = busy.as_ref().map(|busy| of_group(busy).unwrap_or(0));
            Group { summary: Summary { electricity: Some(power.told(us)), ..summary }, name }
        };
        Ok(Groups { by, groups: groups.groups.into_iter().map(with_power).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::answers::Electricity;
    use super::super::power::Power;
    use super::*;
    use crate::calendar::HOUR_MS;
    use crate::record::row::Row;
    use crate::record::store::{DbSync, Store};
    use crate::routes::By;
    use crate::settings::PowerPrice;
    use crate::stats::Prices;
    use crate::testing::{Folder, row};

    const LIST: &str = r#"{"currency": "EUR", "models": [{"model": "llama*", "input": 1, "output": 10}]}"#;

    fn price(per_kwh: f64, currency: Option<&str>) -> PowerPrice {
        PowerPrice { per_kwh, currency: currency.map(str::to_owned) }
    }

    fn reader(rows: &[Row], price: Option<PowerPrice>) -> (Folder, Reader) {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(rows).expect("writes");
        let power = Power::new(Some(300.0), price.as_ref(), Some("EUR")).expect("fits").map(Arc::new);
        let prices = Some(Arc::new(Prices::parse(LIST).expect("a list")));
        (folder, Reader::open(&path).expect("opens").with_prices(prices).with_power(power))
    }

    /// Two requests at once for a minute, and one of another client for another minute.
    fn three() -> [Row; 3] {
        let one = |client: &str, after_ms: i64| Row {
            client: Some(client.to_owned()),
            start_ms: row().start_ms + after_ms,
            duration_ms: 60_000,
            ..row()
        };
        [one("a", 0), one("b", 0), one("b", 600_000)]
    }

    #[test]
    fn an_hour_whose_rows_were_removed_counts_where_it_begins() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let now_ms = row().start_ms + 2 * HOUR_MS;
        store.write(&three()).and_then(|_| store.pack_all()).and_then(|()| store.close_hours(now_ms)).expect("counts");
        rusqlite::Connection::open(&path).and_then(|conn| conn.execute_batch("DELETE FROM requests")).expect("removes");
        let power = Power::new(Some(300.0), None, None).expect("fits").map(Arc::new);
        let reader = Reader::open(&path).expect("opens").with_power(power);
        let half = row().start_ms - row().start_ms % HOUR_MS + HOUR_MS / 2;
        let energy = |from_ms, to_ms| {
            let filter = Filter { from_ms, to_ms, ..ALL };
            let summary = reader.summary_with_power(&filter, now_ms).expect("answers");
            (summary.total_requests, summary.electricity.and_then(|told| told.energy_wh))
        };
        assert_eq!((energy(None, Some(half)), energy(Some(half), None)), ((3, Some(10.0)), (0, Some(0.0))));
    }

    const ALL: Filter =
        Filter { from_ms: None, to_ms: None, names: [const { Vec::new() }; 5], conversations: Vec::new() };

    #[test]
    fn electricity_is_that_of_the_time_in_which_anything_was_under_way() {
        let (_folder, reader) = reader(&three(), Some(price(0.5, None)));
        let now_ms = row().start_ms + HOUR_MS;
        let told = reader.summary_with_power(&ALL, now_ms).expect("answers").electricity.expect("it is told");
        // 300 W for two minutes are 10 Wh, which cost half a cent; elsewhere three requests cost 3 * 0.003285.
        let expected = Electricity {
            energy_wh: Some(10.0),
            electricity_cost: Some(Some(0.005)),
            electricity_currency: Some("EUR".to_owned()),
            saved: Some(Some(0.004855)),
        };
        assert_eq!(told, expected);
        let groups = reader.by(By::Client, &ALL).expect("answers");
        let groups = reader.groups_with_power(groups, &ALL, now_ms).expect("answers");
        let energy: Vec<_> = groups.groups.iter().map(|group| group.summary.electricity.clone()?.energy_wh).collect();
        assert_eq!(energy, [Some(7.5), Some(2.5)], "of what goes on at once each has its part");
    }

    #[test]
    fn time_that_was_not_counted_makes_all_of_it_unknown() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(&three()).expect("writes");
        store.pack_all().expect("packs");
        // Its rows are gone before the hour was looked at.
        let plain = rusqlite::Connection::open(&path).expect("opens");
        plain.execute_batch("DELETE FROM packed_times; DELETE FROM requests").expect("removed");
        let power = Power::new(Some(300.0), Some(&price(0.5, Some("EUR"))), None).expect("fits").map(Arc::new);
        let prices = Some(Arc::new(Prices::parse(LIST).expect("a list")));
        let reader = Reader::open(&path).expect("opens").with_prices(prices).with_power(power);
        let summary = reader.summary_with_power(&ALL, row().start_ms + HOUR_MS).expect("answers");
        let told = summary.electricity.expect("it is told");
        assert_eq!((told.energy_wh, told.electricity_cost, told.saved), (None, Some(None), Some(None)));
        assert!(summary.cost.and_then(|cost| cost.cost).is_some_and(|cost| cost > 0.0), "tokens are known");
    }

    #[test]
    fn what_nobody_knows_is_no_zero() {
        let unpriced = Row { model: Some("mine".to_owned()), ..row() };
        let (_folder, reader) = reader(std::slice::from_ref(&unpriced), Some(price(0.5, None)));
        let now_ms = row().start_ms + HOUR_MS;
        let told = |reader: &Reader| reader.summary_with_power(&ALL, now_ms).expect("answers").electricity;
        assert_eq!(told(&reader).and_then(|told| told.saved), Some(None), "it has no price elsewhere");
        // Another currency, no price, no list.
        let (_folder, other) = self::reader(&[row()], Some(price(0.5, Some("USD"))));
        let of_other = told(&other).expect("it is told");
        assert_eq!((of_other.saved, of_other.electricity_currency.as_deref()), (Some(None), Some("USD")));
        let (_folder, free) = self::reader(&[row()], None);
        let of_free = told(&free).expect("it is told");
        assert_eq!((of_free.electricity_cost, of_free.saved), (None, None));
        assert!(of_free.energy_wh.is_some_and(|wh| wh > 0.0));
        // Time that was not counted, for its rows are gone.
        let power = Power::new(Some(300.0), Some(&price(0.5, None)), Some("EUR")).expect("fits").expect("one");
        let untold = power.told(None);
        assert_eq!((untold.energy_wh, untold.electricity_cost), (None, Some(None)));
    }
}
