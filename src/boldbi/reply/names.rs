//! The user for whom a reply says that its token is. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::invisible::without_byte_order_mark;

/// The values of all fields named `email`, in any case. (Bold BI: `email` in replies since 2020,
/// `Email` in the published API.)
struct Emails(Vec<Value>);

/// Whether the body of a reply names another user than `asked`, compared without case. A reply that
/// names no user counts as one for `asked`.
pub(crate) fn names_another(body: &[u8], asked: &str) -> bool {
    let body = without_byte_order_mark(body);
    let Ok(Emails(named)) = serde_json::from_slice(body) else { return false };
    named.iter().any(|name| match name {
        Value::Null => false,
        Value::String(name) => {
            let name = name.trim();
            !name.is_empty() && !is_same(name, asked)
        }
        // A value that is not text is not the user's name.
        _ => true,
    })
}

/// The other user that a reply names, only if it is plainly an email address.
pub(crate) fn other_email(body: &[u8], asked: &str) -> Option<String> {
    let Emails(emails) = serde_json::from_slice(without_byte_order_mark(body)).ok()?;
    let mut users = emails.iter().filter_map(Value::as_str).map(str::trim);
    let name = users.find(|name| !name.is_empty() && !is_same(name, asked))?;
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'.' | b'_' | b'+' | b'-');
    (name.contains('@') && name.len() <= MAX_EMAIL && name.bytes().all(is_plain))
        .then(|| name.to_owned())
}

/// Some characters beyond ASCII have an ASCII letter as their lower case, such as the Kelvin sign.
/// They do not count as that letter.
fn is_same(name: &str, asked: &str) -> bool {
    if asked.is_ascii() {
        name.eq_ignore_ascii_case(asked)
    } else {
        name.to_lowercase() == asked.to_lowercase()
    }
}

impl<'de> Deserialize<'de> for Emails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Emails;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Emails, A::Error> {
                let mut named = Vec::new();
                while let Some(field) = map.next_key::<String>()? {
                    if field.eq_ignore_ascii_case("email") {
                        named.push(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Emails(named))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Characters of an address (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    fn another(body: &str) -> bool {
        names_another(body.as_bytes(), "Jane@Acme.Example")
    }

    #[test]
    fn the_requested_user_and_no_user_are_not_another_user() {
        for body in [
            "{}",
            r#"{"access_token":"x","username":"jane","user":{"email":"joe@acme.example"}}"#,
            r#"{"email":null,"Email":"","EMAIL":" "}"#,
            r#"{"email":"jane@acme.example"}"#,
            r#"{"Email":"JANE@ACME.EXAMPLE","email":" jane@acme.example "}"#,
            r#"{"\u0065mail":"jane@acme.example"}"#,
        ] {
            assert!(!another(body), "{body}");
        }
        assert!(!names_another("{\"email\":\"ÉLAN@x.io\"}".as_bytes(), "élan@x.io"));
    }

    #[test]
    fn only_a_plain_email_address_of_another_user_is_shown() {
        let shown = |body: &str| other_email(body.as_bytes(), "Jane@Acme.Example");
        let joe = r#"{"email":"jane@acme.example","Email":" joe@acme.example "}"#;
        assert_eq!(shown(joe).as_deref(), Some("joe@acme.example"));
        let long = format!(r#"{{"email":"{}@acme.example"}}"#, "x".repeat(MAX_EMAIL));
        for body in [
            "{}",
            r#"{"email":"canary"}"#,
            r#"{"email":"joe@acme.example\u0000"}"#,
            "canary",
            &long,
        ] {
            assert_eq!(shown(body), None, "{body}");
        }
    }

    #[test]
    fn another_user_is_found_in_every_email_field() {
        for body in [
            r#"{"email":"joe@acme.example"}"#,
            r#"{"access_token":"x","Email":"joe@acme.example"}"#,
            r#"{"eMAIL":"joe@acme.example","x":1}"#,
            r#"{"\u0045mail":"joe@acme.example"}"#,
            r#"{"email":"jane@acme.example","Email":"joe@acme.example"}"#,
            r#"{"email":"joe@acme.example","email":"jane@acme.example"}"#,
            r#"{"email":"jane@acme.example.evil"}"#,
            r#"{"email":"jane@acme.example\u0000"}"#,
            r#"{"email":["jane@acme.example"]}"#,
            r#"{"email":7}"#,
        ] {
            assert!(another(body), "{body}");
        }
        // The Kelvin sign, whose lower case is a `k`.
        assert!(names_another(br#"{"email":"jac\u212a@x.io"}"#, "jack@x.io"));
    }
}
