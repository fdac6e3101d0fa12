//! Windows registry hives (regf), read and edited offline.
#![forbid(unsafe_code)]
