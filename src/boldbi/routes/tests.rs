//! Routes of the published API, other known routes, and spellings of both.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use RouteClass::{Admin, Credentials, Embed, Export, Read, Write};

/// Every published operation without its version, and other known routes, by class and methods. `*`
/// stands for the name of a thing.
const OPERATIONS: [(RouteClass, &str, &str); 21] = [
    (Credentials, "GET POST", "token get-user-key embed/authorize personal-access-token"),
    (Credentials, "GET POST", "settings/embed-secret settings/embed-secret/generate"),
    (Credentials, "GET POST", "administration/embed/configuration users/me/api-keys"),
    (
        Credentials,
        "POST",
        "administration/embed/secrets/regenerate administration/add/ai-credentials",
    ),
    (
        Credentials,
        "GET PUT POST",
        "settings/authentication/oauth settings/authentication/openid settings/authentication/jwt \
         settings/authentication/regenerate-signing-key \
         settings/authentication/regenerate-encryption-key",
    ),
    (
        Admin,
        "GET PUT POST DELETE",
        "settings/site settings/dashboard-settings settings/email settings/accounts \
         settings/azure-active-directory settings/schedule-synchronization/azure-active-directory \
         settings/windows-active-directory settings/windows-active-directory/schedule-synchronization \
         settings/security/cors settings/security/csp settings/security/x-frame-options \
         settings/security/networking/ip-whitelist settings/datastore settings/look-and-feel \
         settings/notifications settings/webhooks settings/user-activity-logs",
    ),
    (
        Admin,
        "GET PUT POST",
        "administration/security/networking/ip-whitelist administration/branding/logos \
         administration/look-and-feel administration/look-and-feel/resources \
         administration/look-and-feel/upload administration/update-proxy-settings \
         administration/user-activation administration/unknown",
    ),
    (
        Admin,
        "GET PUT POST DELETE",
        "startup tenants tenants/* tenant/*/isolation-code tenant/*/grant-access \
         tenant/*/remove-access tenant/*/inherit-settings tenant//update/help-link-visibility \
         external-sites external-sites/* publish/external-sites/add",
    ),
    (
        Admin,
        "PUT POST DELETE",
        "users users/* users/*/groups users/validate user/add user/* csv-users \
         user/import/job/* groups groups/* groups/*/users groups/azure-active-directory/import \
         permissions/users permissions/users/* permissions/groups permissions/groups/* \
         attribute/user attribute/user/* attribute/group attribute/group/* \
         attribute/site attribute/site/* deployment-dashboards",
    ),
    (Admin, "PUT", "dashboards/public dashboards/*/public datasources/*/user-filter"),
    (
        Read,
        "GET HEAD OPTIONS",
        "users users/* users/*/groups user/* user/import/job/* user/import/job/*/failed-import \
         groups groups/* groups/*/users permissions/users/* permissions/groups/* \
         attribute/user/* attribute/group/* attribute/site deployment-dashboards",
    ),
    (
        Read,
        "GET HEAD OPTIONS",
        "dashboards dashboards/* dashboards/*/widgets dashboards/*/views dashboards/public \
         dashboards/favorite dashboards/tabs/* dashboards/by-group-permissions dashboards/drafts \
         dashboards/views/* dashboards/upload/job/* dashboards/schedules dashboards/schedules/*",
    ),
    (
        Read,
        "GET",
        "datasources datasources/ datasources/* data-sources/*/dashboards datasource/getcolumns/* \
         items items/* items/*/location categories categories/* pinboard pinboard/* slideshows \
         slideshows/* publish/items profile/notifications activity-logs user-activity-logs \
         server-version/get system-settings/get-url",
    ),
    (Read, "POST", "items/is-name-exists pinboard/is-name-exists"),
    (Export, "POST", "dashboards/export datasource/export dashboards/download/job"),
    (Export, "GET", "dashboards/download/job/* csv-users/download-template dashboards/*/export"),
    (Write, "GET", "schedules/*/run"),
    (
        Write,
        "POST PUT DELETE PATCH",
        "dashboards dashboards/* dashboards/*/copy dashboards/*/move dashboards/*/unlist \
         dashboard/rename/* dashboards/favorite dashboards/upload dashboards/upload/meta \
         dashboards/drafts dashboards/drafts/* dashboards/views dashboards/views/* \
         dashboards/schedules dashboards/schedules/* schedules/* multi-tab",
    ),
    (
        Write,
        "POST PUT DELETE",
        "datasources datasources/* datasources/*/copy datasources/columns create-pipeline \
         update-pipeline items items/* categories categories/* pinboard pinboard/* pinboard/copy \
         pinboard/rename/* slideshows slideshows/* publish/item publish/items/*/synchronize \
         profile/notifications comments/operation",
    ),
    (Write, "PUT DELETE PATCH", "dashboards/export datasource/export items/is-name-exists"),
    (Write, "POST", "dashboards/*/export unknown unknown/export items/is-name-exists/"),
];

/// The same as a list of method, route and class.
static OPERATIONS_LISTED: LazyLock<Vec<(&str, String, RouteClass)>> = LazyLock::new(operations);

fn operations() -> Vec<(&'static str, String, RouteClass)> {
    let of = |&(class, methods, routes): &(RouteClass, &'static str, &'static str)| {
        let routes: Vec<String> = routes
            .split_whitespace()
            .map(|r| format!("/{}", r.replace('*', "91e76354-60f3")))
            .collect();
        methods
            .split(' ')
            .flat_map(|method| routes.clone().into_iter().map(move |route| (method, route, class)))
            .collect::<Vec<_>>()
    };
    OPERATIONS.iter().flat_map(of).collect()
}

fn class(method: &str, route: &str) -> RouteClass {
    classify(&Method::from_bytes(method.as_bytes()).unwrap(), route)
}

#[test]
fn every_route_of_an_installation_is_of_admins_and_the_secrets_are_of_credentials() {
    let class = |method: &str, route: &str| {
        classify_installation(&Method::from_bytes(method.as_bytes()).unwrap(), route)
    };
    for (method, route, expected) in [
        ("GET", "/v2.0/administration/embed/configuration", Credentials),
        ("POST", "/v2.0/administration/embed/configuration", Credentials),
        ("POST", "/v2.0/administration/embed/secrets/regenerate", Credentials),
        ("GET", "/v2.0/settings/authentication/jwt", Credentials),
        ("PUT", "/v2.0/settings/authentication/openid", Credentials),
        ("POST", "/v2.0/administration/add/ai-credentials", Credentials),
        ("POST", "/token", Credentials),
        ("PUT", "/v2.0/users/42", Credentials),
        ("PUT", "/V2.0/Users/42", Credentials),
        ("PUT", "/v2.0/%75sers/42", Credentials),
        ("PUT", "/v2.0/users;x/42", Credentials),
        ("PUT", "/v2.0//users/42/", Credentials),
        ("PATCH", "/v3.0/users/42", Credentials),
        ("PUT", "/users/42", Credentials),
        ("DELETE", "/v2.0/users/42", Admin),
        ("GET", "/v2.0/users/42", Admin),
        ("PUT", "/v2.0/users", Admin),
        ("POST", "/v2.0/administration/update-proxy-settings", Admin),
        ("POST", "/v2.0/administration/license", Admin),
        ("DELETE", "/v2.0/tenants/x", Admin),
        ("POST", "/v2.0/tenant/x/grant-access", Admin),
        ("DELETE", "/v2.0/user/x", Admin),
        ("GET", "/v2.0/tenants", Admin),
        ("GET", "/v2.0/user-activity-logs", Admin),
        ("GET", "/v2.0/anything-new", Admin),
        ("POST", "/dashboards/export", Admin),
        ("OPTIONS", "/", Admin),
        // They are closed: an installation has no endpoint of the gateway.
        ("POST", "/boldgate/embed/token", Embed),
        ("GET", "/v2.0/boldgate/tenants", Embed),
        ("PUT", "/BoldGate;x/users/42", Embed),
        ("DELETE", "/%62oldgate", Embed),
    ] {
        assert_eq!(class(method, route), expected, "{method} {route}");
    }
}

#[test]
fn every_kind_of_route_has_its_class() {
    for &(method, ref route, expected) in OPERATIONS_LISTED.iter() {
        for version in ["", "/v1.0", "/v2.0", "/v3.0", "/v4.0", "/v5.0", "/v6.0"] {
            let versioned = format!("{version}{route}");
            assert_eq!(class(method, &versioned), expected, "{method} {versioned}");
        }
    }
}

#[test]
fn the_root_is_classed_by_its_method() {
    for route in ["", "/", "//", "/v5.0", "/v5.0/"] {
        assert_eq!(class("GET", route), Read);
        assert_eq!(class("POST", route), Write);
    }
}

#[test]
fn all_spellings_of_a_route_have_the_class_of_the_plain_one() {
    for route in [
        "/TOKEN",
        "/Token/",
        "//token",
        "/%74oken",
        "/v5.0//token",
        "/token.",
        "/token%20%20",
        "/to\u{212a}en",
        "/to%E2%84%AAen",
        "/V5.0/Settings/Embed-%53ecret",
        "/v5.0/%C5%BFettings/embed-%C5%BFecret",
        "/v5.0%2Fsettings%2Fembed-secret",
        "/get-User-Key",
        "/GetUserKey",
    ] {
        assert_eq!(class("GET", route), Credentials, "{route}");
    }
    assert_eq!(class("GET", "/v5/SETTINGS/site"), Admin);
    assert_eq!(class("GET", "/SETTINGS"), Admin);
}

#[test]
fn names_that_contain_secret_words_are_not_secrets() {
    for route in ["/v5.0/users/keyser@example.com", "/pinboard/monkey", "/v5.0/items/tokenize"] {
        assert_eq!(class("GET", route), Read, "{route}");
    }
}

#[test]
fn a_name_chosen_by_the_client_does_not_make_a_change_harmless() {
    assert_eq!(class("POST", "/v5.0/groups/export/users"), Admin);
    assert_eq!(class("POST", "/v5.0/users/is-name-exists"), Admin);
    assert_eq!(class("POST", "/v5.0/dashboards/x/export"), Write);
    assert_eq!(class("DELETE", "/v5.0/dashboards/export"), Write);
    assert_eq!(class("GET", "/v5.0/schedules/export/run"), Write);
    assert_eq!(class("PUT", "/pinboard/download"), Write);
    assert_eq!(class("PUT", "/v5.0/datasources/a%2Fb/user-filter"), Admin);
    assert_eq!(class("PUT", "/v5.0/dashboards/%20/public"), Admin);
}

#[test]
fn only_the_plain_spelling_of_a_post_is_harmless() {
    assert_eq!(class("POST", "/v5.0/dashboards/export"), Export);
    assert_eq!(class("POST", "/items/is-name-exists"), Read);
    for route in [
        "/v5.0/dashboards/export/",
        "/v5.0/Dashboards/export",
        "/v5.0/dashboards/expor%74",
        "/v5.0/dashboards/export;x",
        "/v5.0/v4.0/dashboards/export",
        "/v/dashboards/export",
        "/V5.0/items/is-name-exists",
    ] {
        assert_eq!(class("POST", route), Write, "{route}");
    }
}

#[test]
fn published_routes_of_users_and_pinboards_take_names() {
    let takes = |method: Method, route| takes_name(&method, route);
    for route in ["/v5.0/users/x", "/v1.0/users/x", "/pinboard/x", "/v5.0/pinboard/rename/x"] {
        for method in METHODS_OF_NAMED {
            assert!(takes(method, route), "{route}");
        }
        assert!(!takes(Method::POST, route), "{route}");
    }
    for route in [
        "/v5.0/users",
        "/v5.0/users/x/groups",
        "/v5.0/groups/x",
        "/V5.0/users/x",
        "/v5.0/Users/x",
        "/v5.0/x/users/y",
        "/v5.0/v5.0/users/y",
        "//users/y",
        "/v5.0//users/y",
        "users/y",
        "",
    ] {
        assert!(!takes(Method::GET, route), "{route}");
    }
}

/// A name of parts with encoded slashes between them, and its plain parts.
fn name() -> impl Strategy<Value = (String, Vec<String>)> {
    let parts = prop::sample::select(vec![
        "a",
        "jane@b.example",
        "token",
        "Tokens",
        "api-keys",
        "get-user-key",
        "embed-secret",
        "export",
        "download",
        "public",
        "groups",
        "users",
        "settings",
        "rename",
        "run",
        "..b",
        "x;y",
        "v5.0",
        "%74oken",
        "to%6ben",
        "tok%65n;x",
        "%C5%BFecret",
        "secret%20",
        "key.",
    ]);
    let slash = prop::sample::select(vec!["%2F", "%2f", "%5C", "%5c"]);
    prop::collection::vec((slash, parts), 1..5).prop_map(|parts| {
        let name: String = parts.iter().flat_map(|(slash, part)| [*slash, *part]).collect();
        (name[3..].to_owned(), parts.iter().map(|(_, part)| (*part).to_owned()).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Servers decode before they split, or after it, or not at all; some cut off parameters. Each
    /// of them finds a route of at most the class that was admitted.
    #[test]
    fn no_reading_of_a_name_with_slashes_has_a_higher_class_than_was_admitted(
        (name, parts) in name(),
        family in prop::sample::select(vec!["/v5.0/users", "/pinboard", "/v4.0/pinboard/rename"]),
        method in prop::sample::select(METHODS_OF_NAMED.to_vec()),
    ) {
        let route = format!("{family}/{name}");
        let raw = format!("{method} {route} HTTP/1.1\r\nHost: gw\r\n\r\n");
        let raw = crate::request::RawHead::read(raw.as_bytes()).unwrap();
        let head = crate::request::RequestHead::parse(&raw).unwrap();
        prop_assert_eq!(head.target.has_encoded_slash(), parts.len() > 1);
        prop_assert!(takes_name(&method, head.target.path()));
        let admitted = classify(&method, head.target.path());
        let decoded = percent_decode_str(&name).decode_utf8_lossy().into_owned();
        let cut = |text: &str| text.split(';').next().unwrap_or_default().to_owned();
        let split: Vec<String> = parts.iter().map(|part| cut(part)).collect();
        for reading in [
            name.clone(),
            decoded.clone(),
            decoded.replace('\\', "/"),
            decoded.replace('/', "\\"),
            cut(&decoded),
            cut(&name),
            split.join("/"),
            // One name, whatever it is.
            "a".to_owned(),
        ] {
            let class = classify(&method, &format!("{family}/{reading}"));
            prop_assert!(class <= admitted, "{} {}: {}", method, route, reading);
        }
    }
}

#[test]
fn a_plain_route_is_not_copied() {
    assert!(matches!(plain("/v5.0/dashboards/91e76354-60f3"), Cow::Borrowed(_)));
}

/// Numbers from a seed (`SplitMix64`): a hundred thousand cases with a list for each take minutes.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed >> 33) % bound as u64).unwrap()
    }
}

/// Writes a character in one of the spellings that some server takes for the same.
fn spell(text: &mut String, character: char, choice: usize) {
    let upper = character.to_ascii_uppercase();
    match (choice, character) {
        (1, _) => text.push(upper),
        (2, _) => *text += &format!("%{:02X}", character as u8),
        (3, _) => *text += &format!("%{:02x}", upper as u8),
        (4, 's') => text.push('\u{17f}'),
        (5, 's') => *text += "%C5%BF",
        (4, 'k') => text.push('\u{212a}'),
        (5, 'k') => *text += "%E2%84%AA",
        (4, 'i') => text.push('\u{131}'),
        (5, 'i') => *text += "%C4%B0",
        _ => text.push(character),
    }
}

/// Texts around a slash that some server ignores.
const BETWEEN: [(&str, &str); 12] = [
    ("", ""),
    ("", ""),
    ("", ""),
    ("", "/"),
    (".", ""),
    ("%20", ""),
    ("%2e%20", ""),
    (";a=b", ""),
    ("%3Bx", ""),
    ("", "./"),
    ("", "%2F"),
    ("%00", ";x/"),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn no_spelling_is_weaker_than_the_plain_one(
        row in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (method, route, expected) = row.get(&OPERATIONS_LISTED);
        let mut dice = Dice(seed);
        let plainly = dice.below(3) == 0;
        let mut text = ["", "/v5.0", "/V4%2e0", "/v2"][dice.below(4)].to_owned();
        for segment in route.split('/').skip(1) {
            let (before, behind) = BETWEEN[dice.below(BETWEEN.len())];
            text += before;
            text += "/";
            text += behind;
            for character in segment.chars() {
                spell(&mut text, character, if plainly { 0 } else { dice.below(6) });
            }
        }
        text += BETWEEN[dice.below(BETWEEN.len())].0;
        prop_assert!(class(method, &text) >= *expected, "{} {}", method, text);
    }
}

proptest! {
    #[test]
    fn arbitrary_routes_never_panic(route in any::<String>()) {
        classify(&Method::GET, &route);
        classify(&Method::POST, &route);
    }
}
