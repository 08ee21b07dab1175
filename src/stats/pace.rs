//! How long the statistics thread rests between two answers. While rows are recorded, questions without pause would
//! take their share of the processor from the exchanges that bring them; a rest for each answer leaves them a twentieth
//! of one.

use std::time::Duration;

use crate::limits::{ANSWER_REST_FACTOR, ANSWER_REST_MAX, ANSWER_REST_MIN};

/// What has been recorded when the last answer was done. Pure: time and counts are arguments.
#[derive(Debug, Default)]
pub struct AnswerPace {
    rows_written: u64,
}

impl AnswerPace {
    /// The rest after an answer that took so long. `rows_written`: ever since the start. None where no row came since
    /// the last answer: nobody is held up.
    pub fn rest(&mut self, took: Duration, rows_written: u64) -> Duration {
        let records = self.rows_written != rows_written;
        self.rows_written = rows_written;
        if records { (took * ANSWER_REST_FACTOR).clamp(ANSWER_REST_MIN, ANSWER_REST_MAX) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_rests_while_rows_come_and_never_for_long() {
        let mut pace = AnswerPace::default();
        let ms = Duration::from_millis;
        let mut check = |took: Duration, rows: u64, rest: Duration| assert_eq!(pace.rest(took, rows), rest, "{took:?}");
        check(ms(1), 0, ms(0));
        check(ms(1), 7, ms(1) * ANSWER_REST_FACTOR);
        check(ms(1), 7, ms(0));
        check(Duration::from_micros(10), 8, ANSWER_REST_MIN);
        check(ms(60), 9, ANSWER_REST_MAX);
        check(ms(60), 9, ms(0));
    }
}
