//! Everything that is particular to Bold BI.

/// What an operator should try.
pub fn hint(_: &crate::token::ExchangeError) -> &'static str {
    ""
}
