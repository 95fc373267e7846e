//! Paths for logs that must not name people.

use std::borrow::Cow;

/// The path with `*` in place of each segment that may name a person: one after a segment `users`,
/// and one with an `@`, also an encoded one. (Bold BI: `/users/{username}` and what is below it,
/// REST API v1.0 to v6.0; its user names are e-mail addresses as a rule.)
pub fn without_names(path: &str) -> Cow<'_, str> {
    let mut after_users = false;
    // A search for text is dear, and hardly any path has one of these.
    let may_have_at = path.bytes().any(|b| matches!(b, b'@' | b'%'));
    let has_at =
        |segment: &str| may_have_at && ["@", "%40", "%2540"].iter().any(|at| segment.contains(at));
    let names =
        |segment: &str, after_users: bool| !segment.is_empty() && (after_users || has_at(segment));
    let is_users = |segment: &str| segment.eq_ignore_ascii_case("users");
    let has_names = path.split('/').any(|segment| {
        let is_name = names(segment, after_users);
        after_users = is_users(segment);
        is_name
    });
    if !has_names {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    after_users = false;
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            plain.push('/');
        }
        plain.push_str(if names(segment, after_users) { "*" } else { segment });
        after_users = is_users(segment);
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
        ] {
            assert_eq!(without_names(path), logged);
        }
        for path in ["", "/", "/v5.0/users", "/v5.0/users/", "/v5.0/items/1", "/users//x", "/%41"] {
            assert!(matches!(without_names(path), Cow::Borrowed(same) if same == path), "{path}");
        }
    }
}
