//! Integration tests: real listeners on free ports, only the public API.
#![cfg(test)]

mod config;
mod data_path;
mod exchange;
mod running;
mod single_flight;
mod structure;
mod support;
