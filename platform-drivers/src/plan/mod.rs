//! Plans of changes to an offline Windows.

pub mod edit;
