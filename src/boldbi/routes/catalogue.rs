//! Known routes of Bold BI, as data: its REST API for sites v1.0 to v6.0 and for the server (UMS)
//! v1.0 and v2.0 as published in its documentation (repository bold-bi-docs at b55ab45, 376
//! operations), and the other routes in its articles and its embed SDK.
//!
//! All other routes have the class of their method: `read` for GET, HEAD and OPTIONS, else `write`.

use http::Method;

use crate::policy::RouteClass::{self, Admin, Credentials, Export, Read, Write};

/// The methods for which a route has another class than its method suggests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// GET, HEAD and OPTIONS.
    Look,
    /// All others.
    Change,
    /// All of them.
    Any,
}

/// Families of routes with a higher class than their methods suggest: methods, first segment,
/// class.
pub(super) const FAMILIES: [(On, &str, RouteClass); 21] = [
    // These mint tokens.
    (On::Any, "token", Credentials),
    (On::Any, "get-user-key", Credentials),
    // The setup of site and server: addresses, proxies, directories, data stores.
    (On::Any, "settings", Admin),
    (On::Any, "administration", Admin),
    (On::Change, "system-settings", Admin),
    (On::Any, "startup", Admin),
    (On::Any, "tenant", Admin),
    (On::Any, "tenants", Admin),
    (On::Change, "site", Admin),
    (On::Change, "sites", Admin),
    (On::Change, "deployment-dashboards", Admin),
    // Other sites, and the credentials for them.
    (On::Any, "external-sites", Admin),
    // Permissions, and the attributes of users and groups that filter rows.
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

/// The same for routes of a family: methods, first segment, any later segment, class. Names of
/// things may stand between the two, and all routes below have the same class.
pub(super) const BELOW: [(On, &str, &str, RouteClass); 12] = [
    // These mint tokens, show secrets, or set who may log in and with which keys.
    (On::Any, "embed", "authorize", Credentials),
    (On::Any, "settings", "embed-secret", Credentials),
    (On::Any, "settings", "authentication", Credentials),
    // The common secret of all sites is among these.
    (On::Any, "administration", "embed", Credentials),
    (On::Any, "administration", "ai-credentials", Credentials),
    // The login to another site.
    (On::Any, "publish", "external-sites", Admin),
    // Dashboards that can be seen without a login, and the rows of a data source that a user sees.
    (On::Change, "dashboard", "public", Admin),
    (On::Change, "dashboards", "public", Admin),
    (On::Change, "datasource", "user-filter", Admin),
    (On::Change, "datasources", "user-filter", Admin),
    (On::Change, "data-sources", "user-filter", Admin),
    // The only GET that changes something.
    (On::Look, "schedules", "run", Write),
];

/// POST routes with a lower class than their method suggests, without the version. Only this
/// spelling counts.
pub(super) const HARMLESS_POSTS: [(&str, RouteClass); 5] = [
    ("/dashboards/export", Export),
    ("/dashboards/download/job", Export),
    ("/datasource/export", Export),
    ("/items/is-name-exists", Read),
    ("/pinboard/is-name-exists", Read),
];

/// Published routes whose next and last segment is a name that people choose, without the version.
/// A user is named by login name, such as `EXAMPLE\jane`, or by e-mail address.
pub(super) const NAMED: [&str; 3] = ["/users", "/pinboard", "/pinboard/rename"];

/// The methods of these routes.
pub(super) const METHODS_OF_NAMED: [Method; 4] =
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE];

/// Segments that mean credentials anywhere in a route, for unpublished routes.
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

/// Ends of segments whose words are run together, in singular: `embedsecret`, `getuserkey`, …
pub(super) const SECRET_ENDINGS: [&str; 7] =
    ["token", "secret", "apikey", "userkey", "signingkey", "encryptionkey", "password"];

/// Beginnings of segments that export data, anywhere in a route, for GET, HEAD and OPTIONS.
pub(super) const EXPORT_BEGINNINGS: [&str; 2] = ["export", "download"];
