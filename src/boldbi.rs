//! Everything that is particular to Bold BI.

use http::Method;

use crate::policy::RouteClass;

/// The class of a route of Bold BI's API, by its method alone.
pub fn classify(method: &Method, _route: &str) -> RouteClass {
    if method.is_safe() { RouteClass::Read } else { RouteClass::Write }
}
