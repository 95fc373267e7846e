//! Changes while the gateway runs, and its start and stop, with the real binary and real files.

mod changes;
mod client_cas;
mod kept;
mod open_connections;
mod plain_files;
mod refused;
mod restarts;
mod socket_access;
mod stop;
mod under_load;
mod watched;
