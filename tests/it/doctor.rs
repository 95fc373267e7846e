//! `boldgate doctor`: planted faults of a set-up, and its output and exit codes.

mod certificates;
mod faults;
mod output;
mod plant;
