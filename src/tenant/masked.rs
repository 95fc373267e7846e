//! The paths of masked mode: `/masked/{tenant}/{route}`, below the root of the gateway. Nothing
//! below the first segment is ever a path of a server. Pure.

/// The name of the tenant and the route, with its slash in front, of a path of masked mode; `None`
/// for every other path, and for one without a route.
pub(super) fn name_and_route(path: &str) -> Option<(&str, &str)> {
    let below = path.strip_prefix(PREFIX)?.strip_prefix('/')?;
    let end = below.find('/')?;
    Some((&below[..end], &below[end..]))
}

/// Whether a path is one of masked mode, for whatever tenant.
pub fn is_masked(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Whether a segment would hide a server below the paths of masked mode.
pub fn is_masked_segment(segment: &str) -> bool {
    segment.eq_ignore_ascii_case(&PREFIX[1..])
}

const PREFIX: &str = "/masked";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_masked_mode_names_a_tenant_and_a_route() {
        assert_eq!(name_and_route("/masked/acme/v1.0/x"), Some(("acme", "/v1.0/x")));
        assert_eq!(name_and_route("/masked/acme/"), Some(("acme", "/")));
        for path in
            ["/masked", "/masked/", "/masked/acme", "/maskedx/acme/v1.0", "/MASKED/acme/v1.0", "/x"]
        {
            assert_eq!(name_and_route(path), None, "{path}");
        }
        assert!(is_masked("/masked") && is_masked("/masked/") && !is_masked("/maskeds"));
    }
}
