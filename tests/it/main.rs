//! Tests of the crate through its public API; a module per subject.
#![forbid(unsafe_code)]

mod config;
