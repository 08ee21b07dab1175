//! What electricity so much time takes, by `POWER_WATTS` and `POWER_PRICE`.

use super::answers::{Cost, Electricity};
use crate::settings::PowerPrice;

/// Microseconds of an hour.
const HOUR_US: f64 = 3_600_000_000.0;

/// What the machine takes while it works.
#[derive(Clone, Debug, PartialEq)]
pub struct Power {
    watts: f64,
    /// What a kilowatt hour costs, in which currency.
    price: Option<(f64, String)>,
}

impl Power {
    /// As the settings say; `None`: they say nothing. Where `POWER_PRICE` names no currency, it is that of the list of
    /// prices. An error says what does not fit.
    pub fn new(
        watts: Option<f64>,
        price: Option<&PowerPrice>,
        of_models: Option<&str>,
    ) -> Result<Option<Power>, String> {
        let price = match (price, watts) {
            (None, _) => None,
            (Some(_), None) => return Err("POWER_PRICE is set, and POWER_WATTS is not: it takes both".to_owned()),
            (Some(PowerPrice { per_kwh, currency }), Some(_)) => {
                let currency = currency.as_deref().or(of_models).ok_or(
                    "POWER_PRICE has no currency: it takes one, as in 0.30 EUR, where MODEL_PRICES has none either",
                )?;
                Some((*per_kwh, currency.to_owned()))
            }
        };
        Ok(watts.map(|watts| Power { watts, price }))
    }

    /// Of so much time.
    pub(super) fn joules(&self, busy_us: i64) -> f64 {
        self.watts * busy_us as f64 / 1e6
    }

    /// What that costs, and the currency.
    pub(super) fn cost(&self, busy_us: i64) -> Option<(f64, &str)> {
        let (per_kwh, currency) = self.price.as_ref()?;
        Some((self.watts / 1000.0 * busy_us as f64 / HOUR_US * per_kwh, currency))
    }

    /// As answers tell it. `busy_us` is `None` where that is not known of all the time.
    pub(super) fn told(&self, busy_us: Option<i64>) -> Electricity {
        let rounded = |value: f64, unit: f64| (value * unit).round() / unit;
        let cost = busy_us.and_then(|us| self.cost(us));
        Electricity {
            energy_wh: busy_us.map(|us| rounded(self.joules(us) / 3600.0, 1e3)),
            electricity_cost: self.price.is_some().then(|| cost.map(|(cost, _)| rounded(cost, 1e6))),
            electricity_currency: self.price.as_ref().map(|(_, currency)| currency.clone()),
            saved: None,
        }
    }

    /// The same beside what it would have cost elsewhere. Where the currencies are not the same, nobody knows what was saved.
    pub(super) fn beside(&self, elsewhere: Option<&Cost>, busy_us: Option<i64>) -> Electricity {
        let told = self.told(busy_us);
        let (Some(elsewhere), Some((_, currency))) = (elsewhere, &self.price) else { return told };
        let both = elsewhere.cost.zip(told.electricity_cost.flatten()).filter(|_| elsewhere.currency == *currency);
        let saved = both.map(|(elsewhere, here)| ((elsewhere - here) * 1e6).round() / 1e6);
        Electricity { saved: Some(saved), ..told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(per_kwh: f64, currency: Option<&str>) -> PowerPrice {
        PowerPrice { per_kwh, currency: currency.map(str::to_owned) }
    }

    #[test]
    fn a_price_of_electricity_has_a_currency_and_something_to_price() {
        let check = |watts, price: PowerPrice, of_models, words: &str| {
            let error = Power::new(watts, Some(&price), of_models).expect_err(words);
            assert!(error.contains(words), "{error}");
        };
        check(None, price(0.3, Some("EUR")), None, "POWER_WATTS is not");
        check(Some(1.0), price(0.3, None), None, "POWER_PRICE has no currency");
        assert_eq!(Power::new(None, None, Some("EUR")), Ok(None));
        let own = Power::new(Some(100.0), Some(&price(0.3, Some("CHF"))), Some("EUR")).expect("fits").expect("one");
        assert_eq!(own.cost(3_600_000_000).map(|(_, currency)| currency), Some("CHF"));
    }
}
