//! The command line of boldgate.

fn main() {}
