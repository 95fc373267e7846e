//! Values that the configuration in force hides when it is shown: users, and parts of secrets.

use serde::Serializer;

use super::field::Field;
use super::shown;

/// Serializes [`HIDDEN`] in place of a value: it is a user, or part of a secret.
pub(super) fn hidden<T, S: Serializer>(value: &Field<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Field::Given(_) => serializer.serialize_str(HIDDEN),
        Field::Missing | Field::Faulty(_) => serializer.serialize_none(),
    }
}

/// Serializes the path of a file with a secret, unless it may be the secret.
pub(super) fn path_of_secret<S: Serializer>(
    value: &Field<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Field::Given(path) => {
            let named = shown::file(path.as_ref());
            let named = named.trim().trim_matches('`');
            serializer.serialize_str(if named.is_empty() { HIDDEN } else { named })
        }
        Field::Missing | Field::Faulty(_) => serializer.serialize_none(),
    }
}

/// Serializes a URL or a path without its query, which may hold a key.
pub(super) fn without_query<S: Serializer>(
    value: &Field<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Field::Given(text) => match text.split_once('?') {
            Some((path, _)) => serializer.collect_str(&format_args!("{path}?{HIDDEN}")),
            None => serializer.serialize_str(text),
        },
        Field::Missing | Field::Faulty(_) => serializer.serialize_none(),
    }
}

/// It stands for a value that is not shown.
pub(super) const HIDDEN: &str = "***";
