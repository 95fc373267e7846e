//! Attacks, by the ids of the catalogue that they come from (`SMG-04`, …). Each test asserts on
//! what reached the server: connections, requests, exchanges. Beside the refusals stands a control,
//! a well-formed request through the same gateway, so that one that refuses everything fails too.

mod authorization;
mod callers;
mod differential;
mod framing;
mod headers;
mod hosts;
mod leaks;
mod names;
mod paths;
mod readers;
mod shared;
mod slow;
mod standing;
