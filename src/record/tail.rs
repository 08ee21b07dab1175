//! The end of a reply, kept back until its row is committed.

use crate::front::client::Loan;

/// The last bytes of a reply, and what becomes of its connection then.
pub struct Tail {
    loan: Loan,
    bytes: Vec<u8>,
    complete: bool,
}

impl Tail {
    /// Not `complete`: with these bytes the reply is not whole, and the client shall see it.
    pub fn new(loan: Loan, bytes: Vec<u8>, complete: bool) -> Tail {
        Tail { loan, bytes, complete }
    }

    /// Sends the bytes, waiting where the client reads slowly, and returns the connection.
    pub fn send(self) {
        match self.loan.client().write_all(&self.bytes) {
            Ok(()) => self.end(),
            Err(_) => self.loan.cut(),
        }
    }

    /// Sends what the socket takes at once. The rest, if any, comes back.
    pub fn send_now(mut self) -> Option<Tail> {
        match self.loan.client().write_now(&self.bytes) {
            Ok(n) if n == self.bytes.len() => self.end(),
            Ok(n) => {
                self.bytes.drain(..n);
                return Some(self);
            }
            Err(_) => self.loan.cut(),
        }
        None
    }

    fn end(self) {
        if self.complete { self.loan.give_back() } else { self.loan.cut() }
    }
}
