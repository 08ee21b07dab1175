//! A client's connection, as far as the loop that it belongs to and whoever borrows it share it.
//!
//! ```text
//!          lend                 give back (nothing is left, nothing happened)
//!  parked ──────▶ lent ────────────────────────────────────────────────▶ parked, found at the next event
//!                  │    give back (there is something to go on with), or close
//!                  └───────────────────────────────────────────────────▶ Returns + wake ──▶ its loop
//! ```
//!
//! The socket stays registered and non-blocking for its whole life. The loop is its only reader; its only writer is whoever
//! holds the loan, else the loop. Lending and giving back takes neither epoll_ctl nor fcntl nor dup, unless the
//! connection moves to another loop or its last bytes are waited for, and giving back costs two atomic operations.
//!
//! - [`connection`]: the socket, whose turn it is, and how its exchange is called off ([`Client`]).
//! - [`loan`]: the borrower's hand on it ([`Loan`]), with the request to answer ([`Lend`]).
//! - [`returns`]: how it comes back.
//! - [`tail`]: the end of a reply, kept back until its row is committed.
//! - [`bodies`]: the memory that all request bodies take together.

pub mod bodies;
pub mod connection;
pub mod loan;
pub mod returns;
pub mod tail;

pub use bodies::{Bodies, Claim};
pub use connection::{CalledOff, Client, Interrupt, Socket, write_now};
pub use loan::{Lend, Loan};
pub use returns::{AfterReply, Fate, Return, Returns};
pub use tail::Tail;
