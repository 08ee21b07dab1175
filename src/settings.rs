//! Environment and flags.
