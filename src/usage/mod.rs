//! What each dialect says about tokens. Pure: bytes in, values out.

pub mod asked;
pub mod client;
pub mod excerpt;
pub mod inject;
pub mod members;
pub mod prompt;
