//! boldgate, an authentication gateway for Bold BI, as a library for its binary, its tests and its
//! benches. The modules in the order of their imports, each line knowing only the lines below it:
//!
//! ```text
//! cli
//! run  proxy          the only ones that name pingora
//! admin
//! config              the configuration file, parsed into values that cannot be wrong
//! boldbi              everything that is particular to Bold BI
//! gateway             the decisions on one request, in order
//! refusal  headers
//! token
//! policy
//! caller
//! tenant
//! request
//! secret  telemetry
//! ```
#![forbid(unsafe_code)]

pub mod boldbi;
pub mod caller;
pub mod config;
pub mod policy;
pub mod request;
pub mod secret;
pub mod telemetry;
pub mod tenant;
pub mod token;
