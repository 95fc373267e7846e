//! Integration tests: real listeners on free ports, only the public API.
#![cfg(test)]
#![expect(unreachable_pub, reason = "`pub` is what the modules share; nothing is published")]

mod access_log;
mod admin;
mod admission;
mod audit;
mod cli;
mod client_certificates;
mod clients;
mod cold_start;
mod config;
mod cors;
mod data_path;
mod descriptors;
mod disabled_tenants;
mod doctor;
mod documents;
mod exchange;
mod faults;
mod health;
mod idp;
mod jwt;
mod kept_connections;
mod local;
mod metrics;
mod odd_responses;
mod operating;
mod page;
mod pem_files;
mod reasons;
mod reload;
mod security;
mod server_certificates;
mod shipped;
mod signals;
mod single_flight;
mod status_api;
mod status_command;
mod status_readings;
mod structure;
mod subjects;
mod support;
mod tls_handshakes;
mod traces;
mod unknown_subjects;
mod unusable_secrets;
