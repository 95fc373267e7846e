//! The network between the gateway and Bold BI: what is added to requests, and their way.

mod client_certificate;
mod headers;
mod ipv6;
mod proxy;
