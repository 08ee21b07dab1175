//! Things left for a thread that sleeps in its poll.

use std::sync::{Arc, Mutex};

use mio::Waker;

use crate::bell::lock;

/// One thread takes, any may put. It is closed by whoever takes, before that thread ends.
pub struct Mailbox<T> {
    /// What was left and is not taken yet; `None` when nobody takes it any more.
    list: Mutex<Option<Vec<T>>>,
    waker: Arc<Waker>,
}

impl<T> Mailbox<T> {
    /// An empty one, which wakes the poll of this waker.
    pub fn new(waker: Arc<Waker>) -> Mailbox<T> {
        Mailbox { list: Mutex::new(Some(Vec::new())), waker }
    }

    /// Leaves something; back it comes when nobody takes it any more.
    pub fn put(&self, thing: T) -> Result<(), T> {
        let first = match &mut *lock(&self.list) {
            Some(list) => {
                list.push(thing);
                list.len() == 1
            }
            None => return Err(thing),
        };
        // Whoever left the first one has woken the thread already.
        if first {
            self.wake();
        }
        Ok(())
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        // A waker fails only when the poll is gone, and then nobody is left to wake.
        let _ = self.waker.wake();
    }

    /// Everything left since the last call.
    pub fn take(&self) -> Vec<T> {
        lock(&self.list).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same, for the last time.
    pub fn close(&self) -> Vec<T> {
        lock(&self.list).take().unwrap_or_default()
    }
}
