//! Integration tests: real listeners on free ports, only the public API.

mod exchange;
mod single_flight;
mod support;
