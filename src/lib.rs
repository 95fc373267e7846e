//! boldgate, an authentication gateway for Bold BI, as a library for its binary, tests and benches.
//! The modules in the order of their imports. Each imports only modules in lines below it:
//!
//! ```text
//! cli
//! run
//! admin
//! status              the state of the gateway, for the admin listener
//! proxy
//! config              the configuration file, parsed into valid values
//! boldbi  jwks        everything particular to Bold BI; key sets over HTTP
//! gateway             the decisions on one request, in order
//! refusal  headers
//! token
//! store               the token store of a fleet
//! embed  policy  throttle     embed: the calls that the gateway answers for web pages
//! caller
//! tenant
//! cors                which web pages may use a tenant
//! request
//! traces              the spans of sampled requests, and their export
//! fetch
//! descriptors         how many file descriptors there are, and for which use
//! resizable           a semaphore whose number of permits can change
//! forwarded  host  http1  outbound  telemetry  traceparent  trust     `http1` alone names pingora
//! secret_file         the file of a secret that is replaced, and the journal of that
//! secret
//! invisible           invisible characters in secrets and names
//! plain_file          the one way to read a file of the configuration
//! ```
#![forbid(unsafe_code)]

pub mod admin;
pub mod boldbi;
pub mod caller;
pub mod cli;
pub mod config;
pub mod cors;
pub mod descriptors;
pub mod embed;
pub mod fetch;
pub mod forwarded;
pub mod gateway;
pub mod headers;
pub mod host;
pub mod http1;
pub mod invisible;
pub mod jwks;
pub mod outbound;
pub mod plain_file;
pub mod policy;
pub mod proxy;
pub mod refusal;
pub mod request;
pub mod resizable;
pub mod run;
pub mod secret;
pub mod secret_file;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod throttle;
pub mod token;
pub mod traceparent;
pub mod traces;
pub mod trust;
