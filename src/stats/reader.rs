//! The reading connection, and one query for each question.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

use super::answers::{ByModel, ModelSums, Recent, RecentRequest, Summary};
use crate::limits::READ_WAIT_MAX;
use crate::record::rfc3339::whole_seconds;
use crate::record::sums::ALL_TIME;

/// Memory for pages of the reading connection, in KiB. SQLite's default is 2000; sums of all time are a few pages.
const CACHE_KB: i64 = 512;

/// What every answer about sums is made of, in the order that [`Figures::read`] expects.
const FIGURES: &str = "coalesce(sum(requests), 0),
    coalesce(sum(iif(outcome = 'completed', requests, 0)), 0),
    coalesce(sum(iif(outcome = 'client_closed', requests, 0)), 0),
    coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(total_tokens), 0),
    coalesce(sum(cached_tokens), 0), coalesce(sum(reasoning_tokens), 0), coalesce(sum(duration_ms), 0),
    coalesce(sum(total_known), 0)";

/// Answers questions. Cannot write.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
}

impl Reader {
    /// Opens a database that [`crate::record::store::Store::open`] has opened before.
    pub fn open(path: &Path) -> rusqlite::Result<Reader> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(READ_WAIT_MAX)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "cache_size", -CACHE_KB)?;
        Ok(Reader { conn })
    }

    /// Everything ever recorded; zeros where there is nothing.
    pub fn summary(&self) -> rusqlite::Result<Summary> {
        let query = format!("{ALL_TIME} SELECT {FIGURES} FROM counted JOIN series ON series.id = counted.series");
        let sums = self.conn.prepare_cached(&query)?.query_row([], |row| Figures::read(row, 0))?;
        Ok(Summary {
            total_requests: sums.requests,
            successful_requests: sums.completed,
            failed_requests: sums.failed(),
            total_input_tokens: sums.input_tokens,
            total_output_tokens: sums.output_tokens,
            total_tokens: sums.total_tokens,
            average_input_tokens: average(sums.input_tokens, sums.requests),
            average_output_tokens: average(sums.output_tokens, sums.requests),
            total_duration_ms: sums.duration_ms,
            cancelled_requests: sums.cancelled,
            total_cached_tokens: sums.cached_tokens,
            total_reasoning_tokens: sums.reasoning_tokens,
            requests_without_usage: sums.requests - sums.total_known,
        })
    }

    /// The summary's figures apart for each model, most requests first, then by name.
    pub fn by_model(&self) -> rusqlite::Result<ByModel> {
        let query = format!(
            "{ALL_TIME} SELECT model, {FIGURES} FROM counted JOIN series ON series.id = counted.series
             GROUP BY model HAVING sum(requests) > 0 ORDER BY sum(requests) DESC, model"
        );
        let mut statement = self.conn.prepare_cached(&query)?;
        let models = statement.query_map([], |row| {
            let sums = Figures::read(row, 1)?;
            Ok(ModelSums {
                model: row.get(0)?,
                requests: sums.requests,
                input_tokens: sums.input_tokens,
                output_tokens: sums.output_tokens,
                total_tokens: sums.total_tokens,
                avg_tokens_per_request: average(sums.total_tokens, sums.requests),
                successful_requests: sums.completed,
                failed_requests: sums.failed(),
                cancelled_requests: sums.cancelled,
                cached_tokens: sums.cached_tokens,
                reasoning_tokens: sums.reasoning_tokens,
                duration_ms: sums.duration_ms,
            })
        })?;
        Ok(ByModel { models: models.collect::<rusqlite::Result<_>>()? })
    }

    /// The newest rows, newest first.
    pub fn recent(&self, limit: u32) -> rusqlite::Result<Recent> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, endpoint, model, input_tokens, output_tokens, total_tokens, duration_ms, start_time, is_error,
                was_streamed, outcome, http_status, requested_model, cached_tokens, reasoning_tokens,
                time_to_first_token_ms, tokens_per_second, finish_reason, usage_source, model_load_ms, client, key,
                attempt, error_message, request_id
             FROM requests ORDER BY id DESC LIMIT ?1",
        )?;
        let requests = statement.query_map([limit], recent_request)?;
        Ok(Recent { requests: requests.collect::<rusqlite::Result<_>>()? })
    }
}

fn recent_request(row: &Row) -> rusqlite::Result<RecentRequest> {
    let start_time: String = row.get(7)?;
    let tokens_per_second: Option<f64> = row.get(16)?;
    Ok(RecentRequest {
        id: row.get(0)?,
        endpoint: row.get(1)?,
        model: row.get(2)?,
        input_tokens: row.get(3)?,
        output_tokens: row.get(4)?,
        total_tokens: row.get(5)?,
        duration_ms: row.get(6)?,
        start_time: whole_seconds(&start_time),
        is_error: row.get(8)?,
        was_streamed: row.get(9)?,
        outcome: row.get(10)?,
        http_status: row.get(11)?,
        requested_model: row.get(12)?,
        cached_tokens: row.get(13)?,
        reasoning_tokens: row.get(14)?,
        time_to_first_token_ms: row.get(15)?,
        tokens_per_second: tokens_per_second.map(|rate| (rate * 100.0).round() / 100.0),
        finish_reason: row.get(17)?,
        usage_source: row.get(18)?,
        model_load_ms: row.get(19)?,
        client: row.get(20)?,
        key: row.get(21)?,
        attempt: row.get(22)?,
        error_message: row.get(23)?,
        request_id: row.get(24)?,
    })
}

struct Figures {
    requests: i64,
    completed: i64,
    cancelled: i64,
    input_tokens: i64,
    output_tokens: i64,
    total_tokens: i64,
    cached_tokens: i64,
    reasoning_tokens: i64,
    duration_ms: i64,
    total_known: i64,
}

impl Figures {
    fn read(row: &Row, first: usize) -> rusqlite::Result<Figures> {
        Ok(Figures {
            requests: row.get(first)?,
            completed: row.get(first + 1)?,
            cancelled: row.get(first + 2)?,
            input_tokens: row.get(first + 3)?,
            output_tokens: row.get(first + 4)?,
            total_tokens: row.get(first + 5)?,
            cached_tokens: row.get(first + 6)?,
            reasoning_tokens: row.get(first + 7)?,
            duration_ms: row.get(first + 8)?,
            total_known: row.get(first + 9)?,
        })
    }

    fn failed(&self) -> i64 {
        self.requests - self.completed - self.cancelled
    }
}

/// Rounded to one decimal; of nothing it is zero.
fn average(sum: i64, requests: i64) -> f64 {
    if requests == 0 { 0.0 } else { one_decimal(sum as f64 / requests as f64) }
}

/// The nearest decimal to the exact value of `mean`, as Python and C's `printf` print it: multiplying by ten first
/// would round twice.
fn one_decimal(mean: f64) -> f64 {
    format!("{mean:.1}").parse().unwrap_or(mean)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::record::row::{Content, Outcome, Row as Record};
    use crate::record::store::{DbSync, Store};
    use crate::record::testing::{Folder, Random, random_row, row};

    /// A store, a reader beside it, and a third connection for plain SQL over the rows.
    struct Bench {
        store: Store,
        reader: Reader,
        plain: Connection,
        path: PathBuf,
        _folder: Folder,
    }

    fn bench() -> Bench {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let plain = Connection::open(&path).expect("opens");
        Bench { store, reader, plain, path, _folder: folder }
    }

    /// Every figure of every answer, against plain SQL over the rows.
    fn check(reader: &Reader, plain: &Connection) {
        let summary = plain
            .query_row(
                "SELECT count(*), sum(outcome = 'completed'), sum(is_error), sum(input_tokens), sum(output_tokens),
                    sum(total_tokens), 1.0 * sum(input_tokens) / count(*),
                    1.0 * sum(output_tokens) / count(*), sum(duration_ms),
                    sum(outcome = 'client_closed'), sum(cached_tokens), sum(reasoning_tokens),
                    sum(total_tokens IS NULL)
                 FROM requests",
                [],
                |row| {
                    let count = |column| row.get(column).map(Option::<i64>::unwrap_or_default);
                    let mean = |column| row.get(column).map(|mean: Option<f64>| one_decimal(mean.unwrap_or(0.0)));
                    Ok(Summary {
                        total_requests: count(0)?,
                        successful_requests: count(1)?,
                        failed_requests: count(2)?,
                        total_input_tokens: count(3)?,
                        total_output_tokens: count(4)?,
                        total_tokens: count(5)?,
                        average_input_tokens: mean(6)?,
                        average_output_tokens: mean(7)?,
                        total_duration_ms: count(8)?,
                        cancelled_requests: count(9)?,
                        total_cached_tokens: count(10)?,
                        total_reasoning_tokens: count(11)?,
                        requests_without_usage: count(12)?,
                    })
                },
            )
            .expect("a query");
        assert_eq!(reader.summary().expect("answers"), summary);

        let mut statement = plain
            .prepare(
                "SELECT model, count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
                    coalesce(sum(total_tokens), 0), 1.0 * coalesce(sum(total_tokens), 0) / count(*),
                    sum(outcome = 'completed'), sum(is_error), sum(outcome = 'client_closed'),
                    coalesce(sum(cached_tokens), 0), coalesce(sum(reasoning_tokens), 0), sum(duration_ms)
                 FROM requests GROUP BY model ORDER BY 2 DESC, 1",
            )
            .expect("a query");
        let models = statement.query_map([], |row| {
            Ok(ModelSums {
                model: row.get(0)?,
                requests: row.get(1)?,
                input_tokens: row.get(2)?,
                output_tokens: row.get(3)?,
                total_tokens: row.get(4)?,
                avg_tokens_per_request: one_decimal(row.get(5)?),
                successful_requests: row.get(6)?,
                failed_requests: row.get(7)?,
                cancelled_requests: row.get(8)?,
                cached_tokens: row.get(9)?,
                reasoning_tokens: row.get(10)?,
                duration_ms: row.get(11)?,
            })
        });
        let models: Vec<ModelSums> = models.and_then(Iterator::collect).expect("a query");
        assert_eq!(models.iter().map(|model| model.requests).sum::<i64>(), summary.total_requests);
        assert_eq!(models.iter().map(|model| model.total_tokens).sum::<i64>(), summary.total_tokens);
        assert_eq!(reader.by_model().expect("answers").models, models);

        let newest: Vec<i64> = {
            let mut statement = plain.prepare("SELECT id FROM requests ORDER BY id DESC LIMIT 7").expect("a query");
            statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("a query")
        };
        let recent = reader.recent(7).expect("answers");
        assert_eq!(recent.requests.iter().map(|request| request.id).collect::<Vec<_>>(), newest);
    }

    #[test]
    fn an_empty_database_answers_zeros() {
        let bench = bench();
        check(&bench.reader, &bench.plain);
        assert_eq!(bench.store.row_count().expect("answers"), 0);
        let json = serde_json::to_string(&bench.reader.summary().expect("answers")).expect("serialises");
        assert!(
            json.starts_with(
                r#"{"total_requests":0,"successful_requests":0,"failed_requests":0,"total_input_tokens":0,"#
            )
        );
        assert!(json.contains(r#""average_input_tokens":0.0,"#), "{json}");
        let json = serde_json::to_string(&bench.reader.by_model().expect("answers")).expect("serialises");
        assert_eq!(json, r#"{"models":[]}"#);
        let json = serde_json::to_string(&bench.reader.recent(100).expect("answers")).expect("serialises");
        assert_eq!(json, r#"{"requests":[]}"#);
    }

    #[test]
    fn answers_have_the_promised_shape() {
        let mut bench = bench();
        bench.store.write(&[row()]).expect("writes");
        let json = serde_json::to_string(&bench.reader.recent(100).expect("answers")).expect("serialises");
        let fixed = r#"{"requests":[{"id":1,"endpoint":"/v1/chat/completions","model":"llama-3.2-1b-instruct","input_tokens":85,"output_tokens":320,"total_tokens":405,"duration_ms":850,"start_time":"2026-01-19T10:30:45Z","is_error":false,"was_streamed":false,"outcome":"completed","#;
        assert!(json.starts_with(fixed), "{json}");
        let json = serde_json::to_string(&bench.reader.by_model().expect("answers")).expect("serialises");
        let fixed = r#"{"models":[{"model":"llama-3.2-1b-instruct","requests":1,"input_tokens":85,"output_tokens":320,"total_tokens":405,"avg_tokens_per_request":405.0,"#;
        assert!(json.starts_with(fixed), "{json}");
    }

    #[test]
    fn unknown_is_null_and_an_untold_model_is_unknown() {
        let mut bench = bench();
        let silent =
            Record { model: None, input_tokens: None, output_tokens: None, total_tokens: Some(u64::MAX), ..row() };
        bench.store.write(&[silent]).expect("writes");
        check(&bench.reader, &bench.plain);
        let request = &bench.reader.recent(1).expect("answers").requests[0];
        assert_eq!(request.model, "unknown");
        assert_eq!((request.input_tokens, request.output_tokens, request.total_tokens), (None, None, None));
    }

    #[test]
    fn averages_are_rounded_to_one_decimal() {
        assert_eq!(average(45_621, 150), 304.1);
        assert_eq!(average(12_543, 150), 83.6);
        assert_eq!(average(28_877, 20), 1443.8);
        assert_eq!(average(1, 3), 0.3);
        assert_eq!(average(0, 0), 0.0);
    }

    #[test]
    fn statistics_equal_the_rows_whatever_is_written_corrected_and_rolled_up() {
        let mut random = Random::new(20_260_119);
        let mut bench = bench();
        let mut written: Vec<(i64, Record)> = Vec::new();
        for _ in 0..120 {
            let rows: Vec<Record> = (0..random.below(20)).map(|_| random_row(&mut random)).collect();
            let ids = bench.store.write(&rows).expect("writes");
            assert_eq!(ids.len(), rows.len());
            written.extend(ids.into_iter().zip(rows));
            if !written.is_empty() && random.below(2) == 0 {
                let index = random.below(written.len() as u64) as usize;
                let after = random_row(&mut random);
                bench.store.correct(written[index].0, &written[index].1, &after).expect("corrects");
                written[index].1 = after;
            }
            // Rows span three days; some come for hours that are in the sums of their day already.
            let now_ms = row().start_ms + random.below(80) as i64 * 3_600_000;
            while random.below(4) > 0 && bench.store.roll_up(now_ms).expect("rolls up") {}
            check(&bench.reader, &bench.plain);
        }
        assert_eq!(bench.store.row_count().expect("answers"), written.len() as u64);
        check_spans(&bench.plain);
        let stored: i64 = bench.plain.query_row("SELECT count(*) FROM content", [], |row| row.get(0)).expect("a query");
        assert_eq!(stored, written.iter().filter(|(_, row)| !row.content.is_empty()).count() as i64);
    }

    /// Sums of hours equal the rows; sums of days and of all time equal those of the hours rolled up.
    fn check_spans(plain: &Connection) {
        let wrong = |query: &str| plain.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a query");
        let hours = "SELECT unixepoch(start_time) / 3600 AS hour, series.id AS series, count(*) AS requests,
                sum(duration_ms) AS duration_ms, coalesce(sum(input_tokens), 0) AS input_tokens,
                count(input_tokens) AS input_known, count(time_to_first_token_ms) AS first_token_known,
                coalesce(sum(time_to_first_token_ms), 0) AS first_token_ms, count(tokens_per_second) AS speed_known,
                min(requests.id) AS first_id, max(requests.id) AS last_id
            FROM requests JOIN series ON series.endpoint = requests.endpoint AND series.model = requests.model
                AND series.client = coalesce(requests.client, '') AND series.key = coalesce(requests.key, '')
                AND series.outcome = requests.outcome GROUP BY 1, 2";
        assert_eq!(
            wrong(&format!(
                "SELECT count(*) FROM ({hours}) AS h FULL JOIN
                    (SELECT * FROM sums WHERE span = 2 AND requests <> 0) AS s ON h.hour = s.start AND h.series = s.series
                 WHERE h.requests IS NOT s.requests OR h.duration_ms IS NOT s.duration_ms
                    OR h.input_tokens IS NOT s.input_tokens OR h.input_known IS NOT s.input_known
                    OR h.first_token_known IS NOT s.first_token_known OR h.first_token_ms IS NOT s.first_token_ms
                    OR h.speed_known IS NOT s.tokens_per_second_known
                    OR s.first_id > h.first_id OR s.last_id < h.last_id"
            )),
            0
        );
        for (span, start) in [(1, "start - start % 24"), (0, "0")] {
            assert_eq!(
                wrong(&format!(
                    "SELECT count(*) FROM
                        (SELECT {start} AS start, series, sum(requests) AS requests, sum(output_tokens) AS output_tokens
                         FROM sums WHERE span = 2 AND start < (SELECT value FROM meta WHERE name = 'rolled_until')
                         GROUP BY 1, 2) AS h
                     FULL JOIN (SELECT * FROM sums WHERE span = {span}) AS s
                        ON h.start = s.start AND h.series = s.series
                     WHERE h.requests IS NOT s.requests OR h.output_tokens IS NOT s.output_tokens"
                )),
                0
            );
        }
    }

    #[test]
    fn what_the_reader_sees_is_committed_and_it_cannot_write() {
        let bench = bench();
        assert!(bench.reader.conn.execute_batch("DELETE FROM requests").is_err());
        assert!(Reader::open(&bench.path.with_extension("missing")).is_err());
    }

    #[test]
    fn outcomes_are_filed_as_successful_failed_or_cancelled() {
        let mut bench = bench();
        let rows: Vec<Record> = Outcome::ALL
            .iter()
            .map(|outcome| Record { outcome: *outcome, content: Content::default(), ..row() })
            .collect();
        bench.store.write(&rows).expect("writes");
        let summary = bench.reader.summary().expect("answers");
        assert_eq!(
            (summary.successful_requests, summary.failed_requests, summary.cancelled_requests),
            (1, Outcome::ALL.iter().filter(|outcome| outcome.is_failure()).count() as i64, 1)
        );
        check(&bench.reader, &bench.plain);
    }
}
