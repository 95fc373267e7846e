//! Integration tests: real listeners on free ports, only the public API.
#![cfg(test)]

mod cold_start;
mod config;
mod data_path;
mod exchange;
mod running;
mod security;
mod single_flight;
mod structure;
mod support;
