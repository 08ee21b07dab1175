//! What requests say word by word, and what two of them have in common: which conversation one belongs to, and why a
//! server has to read a prompt anew.

pub mod reason;
pub mod session;
