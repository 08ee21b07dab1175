//! The end of a reply, kept back until its row is committed.

use super::loan::Loan;

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

    /// Sends the bytes and returns the connection. What the client does not take at once the loop writes: nobody waits
    /// for who reads slowly.
    pub fn send(mut self) {
        match self.loan.client().write_now(&self.bytes) {
            Ok(n) if n < self.bytes.len() => {
                self.bytes.drain(..n);
                self.loan.give_back_with(self.bytes, self.complete);
            }
            Ok(_) if self.complete => self.loan.give_back(),
            Ok(_) | Err(_) => self.loan.cut(),
        }
    }
}
