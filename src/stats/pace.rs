//! How long the lane rests between two answers. While rows are recorded, questions without pause would take their share
//! of the processor from the exchanges that bring them; a rest for each answer leaves them a twentieth of one.

use std::time::Duration;

use crate::limits::{LANE_REST_FACTOR, LANE_REST_MAX, LANE_REST_MIN};

/// What has been recorded when the last answer was done. Pure: time and counts are arguments.
#[derive(Debug, Default)]
pub struct Pace {
    rows_written: u64,
}

impl Pace {
    /// The rest after an answer that took so long. `rows_written`: ever since the start. None where no row came since
    /// the last answer: nobody is held up.
    pub fn rest(&mut self, took: Duration, rows_written: u64) -> Duration {
        let records = self.rows_written != rows_written;
        self.rows_written = rows_written;
        if records { (took * LANE_REST_FACTOR).clamp(LANE_REST_MIN, LANE_REST_MAX) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_rests_while_rows_come_and_never_for_long() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        let mut check = |took: Duration, rows: u64, rest: Duration| assert_eq!(pace.rest(took, rows), rest, "{took:?}");
        check(ms(1), 0, ms(0));
        check(ms(1), 7, ms(1) * LANE_REST_FACTOR);
        check(ms(1), 7, ms(0));
        check(Duration::from_micros(10), 8, LANE_REST_MIN);
        check(ms(60), 9, LANE_REST_MAX);
        check(ms(60), 9, ms(0));
    }
}
