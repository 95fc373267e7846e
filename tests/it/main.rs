//! Integration tests: real listeners on free ports, only the public API.

mod config;
mod running;
mod structure;
