//! The token store of a fleet, with a real redis-server.

mod actions;
mod condition;
mod configuration;
mod contents;
mod exchanges;
mod faults;
mod forged_actions;
mod heavy;
mod heavy_faults;
mod heavy_versions;
mod kinds;
mod rights;
