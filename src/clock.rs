//! What the clock on the wall can be believed. Pure: the time is an argument.
//!
//! Clocks jump: a machine without a battery begins in 1970 until the network tells it the time; a battery, or a hand,
//! sets 2099. Rows then say so for ever, and what goes by age must not believe it.
//!
//! ```text
//!  believed ──(the clock is further on than it can have gone unseen)──▶ doubted ──(it has gone on for a day)──▶ believed
//!                                                                          └──(it is back where it was)──▶ believed
//! ```

use crate::calendar::DAY_MS;
use crate::limits::{CLOCK_AGREES_MS, CLOCK_LEAP_MS_MAX, CLOCK_STEP_MS_MAX};

/// No request was ever recorded before: 2023, the year in which LM Studio came out.
pub const EARLIEST_TRUE_MS: i64 = 1_672_531_200_000;

/// The last moment that a row can have begun at, asked at `now_ms`: another machine's clock, or this one's before it was
/// set right, may be ahead by a day.
pub fn latest_true_ms(now_ms: i64) -> i64 {
    now_ms.saturating_add(DAY_MS)
}

/// What was seen of the clock so far. Kept in the database, for a clock can be wrong from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The last time that was believed.
    pub believed_ms: i64,
    /// The time has leapt, and nobody knows yet whether rightly.
    pub doubt: Option<Doubt>,
}

/// A time that is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The last time that was seen.
    pub last_ms: i64,
    /// How long the clock has gone on from where it leapt to, at steps that the proxy has seen.
    pub agreed_ms: i64,
}

impl Seen {
    /// The first time ever; there is nothing to hold it against.
    pub fn first(now_ms: i64) -> Seen {
        Seen { believed_ms: now_ms, doubt: None }
    }

    /// Looks at the clock again.
    ///
    /// - A few days further on is nothing: a night, a weekend, a machine that slept. Such an error removes what would
    ///   have gone in a few days.
    /// - Weeks further on may be a holiday, or a clock that is wrong. It is believed when the proxy has seen it go on for
    ///   [`CLOCK_AGREES_MS`] from there: whoever sets clocks right, the network or a person, has done so by then.
    /// - Further back, the same: what was believed may have been wrong. Meanwhile the earlier time is the safe one.
    #[must_use]
    pub fn look(self, now_ms: i64) -> Seen {
        if now_ms.abs_diff(self.believed_ms) <= CLOCK_LEAP_MS_MAX.unsigned_abs() {
            return Seen::first(now_ms);
        }
        let new = Doubt { last_ms: now_ms, agreed_ms: 0 };
        let doubt = match self.doubt {
            Some(Doubt { last_ms, agreed_ms }) if (0..=CLOCK_LEAP_MS_MAX).contains(&now_ms.saturating_sub(last_ms)) => {
                Doubt { last_ms: now_ms, agreed_ms: agreed_ms + (now_ms - last_ms).min(CLOCK_STEP_MS_MAX) }
            }
            Some(_) | None => new,
        };
        if doubt.agreed_ms >= CLOCK_AGREES_MS { Seen::first(now_ms) } else { Seen { doubt: Some(doubt), ..self } }
    }

    /// The time that ages are told from, after [`Seen::look`]: never later than what is believed.
    pub fn age_from_ms(self, now_ms: i64) -> i64 {
        now_ms.min(self.believed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{HOUR_MS, ms_of_text};

    const LOOK_MS: i64 = 600_000;

    fn now() -> i64 {
        ms_of_text("2026-11-28T05:00:00Z").expect("a time")
    }

    fn year_2099() -> i64 {
        ms_of_text("2099-01-01T00:00:00Z").expect("a time")
    }

    /// Looks as the keeper does for so long; the latest age that anything was judged by.
    fn run(seen: &mut Seen, from_ms: i64, for_ms: i64) -> i64 {
        let mut latest = i64::MIN;
        for at in (0..=for_ms / LOOK_MS).map(|step| from_ms + step * LOOK_MS) {
            *seen = seen.look(at);
            latest = latest.max(seen.age_from_ms(at));
        }
        latest
    }

    #[test]
    fn a_clock_that_leaps_ahead_for_hours_and_comes_back_was_never_believed() {
        let mut seen = Seen::first(now());
        assert_eq!(run(&mut seen, year_2099(), 20 * HOUR_MS), now());
        assert_eq!(run(&mut seen, now() + 20 * HOUR_MS, 10 * HOUR_MS), now() + 30 * HOUR_MS);
        assert_eq!(seen.doubt, None);
        // Nor does it add up: the next time counts from its own beginning.
        assert!(run(&mut seen, year_2099(), 20 * HOUR_MS) < year_2099());
    }

    #[test]
    fn nights_and_weekends_are_no_leaps() {
        let mut seen = Seen::first(now());
        for night in 1..60 {
            let morning = now() + night * DAY_MS;
            assert_eq!(run(&mut seen, morning, LOOK_MS), morning + LOOK_MS);
        }
        let monday = now() + 63 * DAY_MS;
        assert_eq!(run(&mut seen, monday, 0), monday);
    }

    #[test]
    fn after_a_holiday_nothing_is_judged_by_the_new_time_until_it_has_gone_on_for_a_day_of_running() {
        let mut seen = Seen::first(now());
        let back = now() + 21 * DAY_MS;
        // Nine hours of work a day: nights count as a step.
        for day in 0..2 {
            assert_eq!(run(&mut seen, back + day * DAY_MS, 9 * HOUR_MS), now(), "day {day}");
        }
        let believed = back + 2 * DAY_MS + 9 * HOUR_MS;
        assert_eq!(run(&mut seen, back + 2 * DAY_MS, 9 * HOUR_MS), believed);
    }

    #[test]
    fn a_machine_that_begins_in_1970_judges_by_that_until_it_knows_the_time() {
        let mut seen = Seen::first(now());
        assert_eq!(run(&mut seen, 5_000, HOUR_MS), HOUR_MS + 5_000);
        assert_eq!(run(&mut seen, now() + HOUR_MS, 0), now() + HOUR_MS);
    }

    #[test]
    fn a_wrong_time_that_was_believed_is_left_again_and_protects_meanwhile() {
        let mut seen = Seen::first(year_2099());
        assert_eq!(run(&mut seen, now(), 30 * HOUR_MS), now() + 30 * HOUR_MS);
        assert_eq!((seen.doubt, seen.believed_ms < year_2099()), (None, true));
        assert!(run(&mut seen, year_2099(), HOUR_MS) < year_2099());
    }

    #[test]
    fn no_time_overflows() {
        for (before, after) in [(0, i64::MAX), (i64::MAX, 0), (i64::MIN, i64::MAX)] {
            let seen = Seen::first(before).look(after).look(before).look(after);
            assert_eq!(seen.age_from_ms(after), before.min(after));
        }
        assert_eq!(latest_true_ms(i64::MAX), i64::MAX);
    }
}
