//! Representative routes of the published API and of what is known beside it, and their spellings.

use proptest::prelude::*;

use super::*;
use RouteClass::{Admin, Credentials, Export, Read, Write};

const TABLE: [(&str, &str, RouteClass); 74] = [
    ("POST", "/token", Credentials),
    ("GET", "/token", Credentials),
    ("POST", "/token%20", Credentials),
    ("POST", "/v4.0/token", Credentials),
    ("POST", "/get-user-key", Credentials),
    ("POST", "/embed/authorize", Credentials),
    ("GET", "/embed/authorize", Credentials),
    ("POST", "/v5.0/embed/authorize", Credentials),
    ("POST", "/v5.0/settings/embed-secret/generate", Credentials),
    ("POST", "/v4.0/settings/embed-secret/generate", Credentials),
    ("GET", "/v5.0/settings/embed-secret", Credentials),
    ("GET", "/v5.0/settings/authentication/oauth", Credentials),
    ("PUT", "/v5.0/settings/authentication/openid", Credentials),
    ("PUT", "/v5.0/settings/authentication/jwt", Credentials),
    ("POST", "/v5.0/settings/authentication/regenerate-signing-key", Credentials),
    ("POST", "/v5.0/settings/authentication/regenerate-encryption-key", Credentials),
    ("POST", "/v5.0/administration/add/ai-credentials", Credentials),
    ("GET", "/v2.0/administration/embed/configuration", Credentials),
    ("POST", "/v2.0/administration/embed/secrets/regenerate", Credentials),
    ("GET", "/v5.0/users/me/api-keys", Credentials),
    ("POST", "/v5.0/personal-access-token", Credentials),
    ("GET", "/v5.0/settings/site", Admin),
    ("PUT", "/v5.0/settings/site", Admin),
    ("GET", "/v5.0/settings/azure-active-directory", Admin),
    ("POST", "/v5.0/settings/security/networking/ip-whitelist", Admin),
    ("GET", "/v5.0/settings/user-activity-logs", Admin),
    ("POST", "/v2.0/administration/update-proxy-settings", Admin),
    ("POST", "/v5.0/users", Admin),
    ("PUT", "/v5.0/users/{user}", Admin),
    ("DELETE", "/v1.0/users/{user}", Admin),
    ("POST", "/v5.0/csv-users", Admin),
    ("POST", "/v5.0/groups", Admin),
    ("DELETE", "/v4.0/groups/{id}/users", Admin),
    ("POST", "/v5.0/groups/azure-active-directory/import", Admin),
    ("POST", "/v5.0/permissions/users", Admin),
    ("DELETE", "/v2.0/permissions/groups/{id}", Admin),
    ("PUT", "/v5.0/attribute/site", Admin),
    ("POST", "/v5.0/publish/external-sites/add", Admin),
    ("PUT", "/v5.0/external-sites/{id}", Admin),
    ("PUT", "/v4.0/dashboards/public", Admin),
    ("PUT", "/v5.0/dashboards/{dashboardId}/public", Admin),
    ("PUT", "/v5.0/datasources/{datasourceID}/user-filter", Admin),
    ("POST", "/v2.0/tenants", Admin),
    ("GET", "/v5.0/users", Read),
    ("GET", "/v5.0/users/{user}/groups", Read),
    ("GET", "/v5.0/groups/{id}", Read),
    ("GET", "/v5.0/permissions/users/{id}", Read),
    ("GET", "/v5.0/user/import/job/{jobId}/failed-import", Read),
    ("GET", "/v5.0/dashboards", Read),
    ("GET", "/v5.0/dashboards/public", Read),
    ("GET", "/v5.0/dashboards/{dashboardId}/widgets", Read),
    ("GET", "/v5.0/dashboards/upload/job/{jobId}", Read),
    ("GET", "/v5.0/items/{id}", Read),
    ("HEAD", "/v5.0/items", Read),
    ("OPTIONS", "/v5.0/items", Read),
    ("POST", "/v5.0/items/is-name-exists", Read),
    ("GET", "/v5.0/activity-logs", Read),
    ("GET", "/pinboard/{name}", Read),
    ("GET", "/server-version/get", Read),
    ("POST", "/v5.0/dashboards/export", Export),
    ("POST", "/v5.0/datasource/export", Export),
    ("POST", "/v5.0/dashboards/download/job", Export),
    ("GET", "/v5.0/dashboards/download/job/{jobId}", Export),
    ("GET", "/v5.0/csv-users/download-template", Export),
    ("POST", "/v5.0/dashboards/upload", Write),
    ("PUT", "/v5.0/dashboards/upload", Write),
    ("POST", "/v5.0/dashboards/{itemId}/copy", Write),
    ("DELETE", "/v5.0/items/{id}", Write),
    ("PUT", "/v5.0/dashboards/favorite", Write),
    ("POST", "/v6.0/dashboards/schedules", Write),
    ("GET", "/v5.0/schedules/{scheduleId}/run", Write),
    ("POST", "/comments/operation", Write),
    ("POST", "/pinboard", Write),
    ("PUT", "/v5.0/profile/notifications", Write),
];

fn class(method: &str, route: &str) -> RouteClass {
    classify(&Method::from_bytes(method.as_bytes()).unwrap(), route)
}

#[test]
fn every_kind_of_route_has_its_class() {
    for (method, route, expected) in TABLE {
        assert_eq!(class(method, route), expected, "{method} {route}");
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
fn spellings_that_some_server_takes_for_the_same_are_the_same() {
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
fn names_of_things_are_not_taken_for_secrets() {
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
}

#[test]
fn a_plain_route_is_not_copied() {
    assert!(matches!(plain("/v5.0/dashboards/91e76354-60f3"), Cow::Borrowed(_)));
}

proptest! {
    #[test]
    fn no_spelling_is_weaker_than_the_plain_one(
        row in 0..TABLE.len(),
        choices in proptest::collection::vec(0..4_u8, 80),
        slashes in 0..3_usize,
    ) {
        let (method, route, expected) = TABLE[row];
        prop_assume!(!route.contains('%'), "encoded already");
        let mut spelled = String::new();
        for (character, choice) in route.chars().zip(choices) {
            match choice {
                1 => spelled.push(character.to_ascii_uppercase()),
                2 if character.is_ascii_alphanumeric() || "-._~".contains(character) => {
                    spelled += &format!("%{:02X}", character as u8);
                }
                3 if character.is_ascii_alphabetic() => {
                    spelled += &format!("%{:02x}", character.to_ascii_uppercase() as u8);
                }
                _ => spelled.push(character),
            }
        }
        spelled += &"/".repeat(slashes);
        prop_assert!(class(method, &spelled) >= expected, "{}", spelled);
    }

    #[test]
    fn arbitrary_routes_never_panic(route in any::<String>()) {
        classify(&Method::GET, &route);
    }
}
