//! Rows, the schema they are kept in, and the recorder that commits them before a reply's last bytes leave.

pub mod fingerprint;
pub mod row;
