//! The version of the program, and the commit that it was built from: `build.rs` finds it out.

/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The first digits of the commit; empty if the build did not know it.
pub const COMMIT: &str = env!("BOLDGATE_COMMIT");
/// The date of the commit; empty if the build did not know it.
pub const DATE: &str = env!("BOLDGATE_DATE");
/// All that is known of them, such as `0.1.0 (a298cba 2026-11-26)`.
pub const BUILD: &str = env!("BOLDGATE_BUILD");
