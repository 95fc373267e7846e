//! Embedding with Bold BI: the strict reading of a web page's call, and the call to Bold BI in its
//! place. No part of the page's text is ever signed before each pair of it was allowed.

mod call;
mod json;
mod page;
mod query;
mod reply;
mod signed;

pub use page::{authorize_order, token_order, trial_order};
pub(crate) use page::{is_guid, is_id};

#[cfg(test)]
mod tests;
