//! What is known of Bold BI's routes, as data: from its REST API for sites v1.0 to v6.0 and for the
//! server (UMS) v1.0 and v2.0 as published in its documentation (repository bold-bi-docs at
//! b55ab45, 376 operations), and what its articles and its embed SDK show beside them.
//!
//! What is not here counts as its method suggests: `read` to look, `write` for all others.

use crate::policy::RouteClass::{self, Admin, Credentials, Export, Read, Write};

/// Methods for which a route is more than it looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// GET, HEAD and OPTIONS.
    Look,
    /// All others.
    Change,
    /// All of them.
    Any,
}

/// Families of routes of a class above what their methods suggest: the methods, the first segment.
pub(super) const FAMILIES: [(On, &str, RouteClass); 21] = [
    // What mints tokens.
    (On::Any, "token", Credentials),
    (On::Any, "get-user-key", Credentials),
    // How the site and the server are set up: addresses, proxies, directories, data stores.
    (On::Any, "settings", Admin),
    (On::Any, "administration", Admin),
    (On::Change, "system-settings", Admin),
    (On::Any, "startup", Admin),
    (On::Any, "tenant", Admin),
    (On::Any, "tenants", Admin),
    (On::Change, "site", Admin),
    (On::Change, "sites", Admin),
    (On::Change, "deployment-dashboards", Admin),
    // Other sites, and what this one logs in to them with.
    (On::Any, "external-sites", Admin),
    // Who may do what, and what users and groups are known by when rows are chosen.
    (On::Change, "user", Admin),
    (On::Change, "users", Admin),
    (On::Change, "csv-users", Admin),
    (On::Change, "group", Admin),
    (On::Change, "groups", Admin),
    (On::Change, "permission", Admin),
    (On::Change, "permissions", Admin),
    (On::Change, "attribute", Admin),
    (On::Change, "attributes", Admin),
];

/// The same for routes of a family: the methods, the first segment, a segment somewhere below it.
/// Names of things may stand in between, and whatever stands behind counts as the same.
pub(super) const BELOW: [(On, &str, &str, RouteClass); 12] = [
    // What mints tokens, shows secrets or says who may log in, and with what keys.
    (On::Any, "embed", "authorize", Credentials),
    (On::Any, "settings", "embed-secret", Credentials),
    (On::Any, "settings", "authentication", Credentials),
    // The common secret of all sites is among these.
    (On::Any, "administration", "embed", Credentials),
    (On::Any, "administration", "ai-credentials", Credentials),
    // The login to another site.
    (On::Any, "publish", "external-sites", Admin),
    // Who sees a dashboard without a login, and which rows of a data source a user sees.
    (On::Change, "dashboard", "public", Admin),
    (On::Change, "dashboards", "public", Admin),
    (On::Change, "datasource", "user-filter", Admin),
    (On::Change, "datasources", "user-filter", Admin),
    (On::Change, "data-sources", "user-filter", Admin),
    // The one GET that does something.
    (On::Look, "schedules", "run", Write),
];

/// POSTs that do less than their method suggests, in their only spelling: below the version, with
/// nothing behind.
pub(super) const HARMLESS_POSTS: [(&str, RouteClass); 5] = [
    ("/dashboards/export", Export),
    ("/dashboards/download/job", Export),
    ("/datasource/export", Export),
    ("/items/is-name-exists", Read),
    ("/pinboard/is-name-exists", Read),
];

/// Segments that mean credentials wherever they stand, in routes that nobody has published.
pub(super) const CREDENTIAL_SEGMENTS: [&str; 3] = ["authorize", "authentication", "get-user-key"];

/// Whether a word between dashes means a secret: in `embed-secret`, `api-keys`,
/// `regenerate-signing-key`, `personal-access-token`, …
pub(super) fn is_secret_word(word: &[u8]) -> bool {
    matches!(
        word,
        b"token"
            | b"tokens"
            | b"secret"
            | b"secrets"
            | b"key"
            | b"keys"
            | b"apikey"
            | b"apikeys"
            | b"credential"
            | b"credentials"
            | b"password"
            | b"passwords"
    )
}

/// Ends of segments whose words are run together, one or many: `embedsecret`, `getuserkey`, …
pub(super) const SECRET_ENDINGS: [&str; 7] =
    ["token", "secret", "apikey", "userkey", "signingkey", "encryptionkey", "password"];

/// Beginnings of segments that take data out, wherever they stand in a route that looks at things.
pub(super) const EXPORT_BEGINNINGS: [&str; 2] = ["export", "download"];
