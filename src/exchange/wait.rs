//! Waiting for what another thread does, in a way that can be called off.

use std::io;
use std::time::Instant;

/// What one look found.
pub enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Look again when woken, and by then at the latest.
    NotYet(Option<Instant>),
}

/// Somebody who can wait.
pub trait Waits {
    /// Looks at the time, and again whenever this thread is unparked, until something is found. An error of kind
    /// `TimedOut` at `deadline`; of `ConnectionAborted`, at once, when the exchange is called off.
    fn wait<T>(&self, deadline: Instant, look: impl FnMut(Instant) -> Look<T>) -> io::Result<T>;
}
