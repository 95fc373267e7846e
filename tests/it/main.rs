//! Integration tests: real listeners on free ports, only the public API.
#![cfg(test)]

mod access_log;
mod admin;
mod cli;
mod cold_start;
mod config;
mod exchange;
mod operating;
mod process;
mod running;
mod shipped;
mod single_flight;
mod structure;
mod support;
