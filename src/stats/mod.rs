//! Questions and answers about what was recorded.
