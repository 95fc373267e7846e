//! Paths for logs that must not name people.

use std::borrow::Cow;

use memchr::memchr2;
use percent_encoding::percent_decode_str;

/// The path with `*` in place of each segment that may name a person: one after a segment `users`,
/// and one with an `@`, also an encoded one. (Bold BI: `/users/{username}` and what is below it,
/// REST API v1.0 to v6.0; its user names are e-mail addresses as a rule.)
pub fn without_names(path: &str) -> Cow<'_, str> {
    // Hardly any path names a person, and each is looked at.
    let bytes = path.as_bytes();
    let may_have_users = memchr2(b'u', b'U', bytes).is_some();
    if !may_have_users && memchr2(b'@', b'%', bytes).is_none() {
        return Cow::Borrowed(path);
    }
    let mut after_users = false;
    let mut plain = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            plain.push('/');
        }
        let has_at = ["@", "%40", "%2540"].iter().any(|at| segment.contains(at));
        let is_name = !segment.is_empty() && (after_users || has_at);
        plain.push_str(if is_name { "*" } else { segment });
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        after_users = decoded.eq_ignore_ascii_case("users");
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_may_name_a_person_are_left_out() {
        for (path, logged) in [
            ("/bi/api/site/site1/v5.0/users/jane", "/bi/api/site/site1/v5.0/users/*"),
            ("/v5.0/Users/jane/activate", "/v5.0/Users/*/activate"),
            ("/v5.0/users/a%2Fb", "/v5.0/users/*"),
            ("/v5.0/groups/1/jane@acme.example/x", "/v5.0/groups/1/*/x"),
            ("/x/jane%40acme.example", "/x/*"),
            ("/x/jane%2540acme.example", "/x/*"),
            ("/users/users/jane", "/users/*/*"),
            ("/v5.0/%75sers/jane", "/v5.0/%75sers/*"),
        ] {
            assert_eq!(without_names(path), logged);
        }
        for path in ["", "/", "/v5.0/users", "/v5.0/users/", "/v5.0/items/1", "/users//x", "/%41"] {
            assert_eq!(without_names(path), path);
        }
    }
}
