use std::collections::HashSet;

use futures_util::FutureExt;
use http::header::HeaderName;

use super::*;
use crate::caller::{Admits, ApiKey, CallerAuth, ListenerTerms, PeerInfo};
use crate::request::{RawHead, RequestHead};
use crate::tenant::{Credential, Grant, samples};

fn tenant(index: usize, name: &str, username: &str, version: u64) -> Tenant {
    let credential = Credential { username: username.into(), version, ..samples::credential() };
    Tenant { credential, ..samples::tenant(index, name, Arc::new(samples::server())) }
}

fn tenants() -> Tenants {
    Tenants::new(vec![tenant(0, "alpha", "a@x", 1), tenant(1, "beta", "b@x", 1)]).unwrap()
}

/// The class is the route's first segment, so that a table can name it.
fn by_name(_: &Method, route: &str) -> RouteClass {
    *RouteClass::ALL.iter().find(|class| route == format!("/{}", class.as_str())).unwrap()
}

const BY_NAME: Routes = Routes {
    classify: by_name,
    classify_installation: by_name,
    takes_name: |_, _| false,
    masked: |_, _| None,
    ui: |_, _, _| None,
};

/// Only authentication makes callers, in tests as elsewhere.
fn caller(named: Option<&str>) -> Caller {
    let key = ApiKey::generate().unwrap();
    let keys = named.map(|name| (key.hash(), CallerName::new(name)));
    let auth = CallerAuth::new(keys, HeaderName::from_static("x-api-key"), Vec::new());
    let raw = format!("GET / HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {}\r\n\r\n", key.expose());
    let raw = RawHead::read(raw.as_bytes()).unwrap();
    let head = RequestHead::parse(&raw).unwrap();
    let admits = if named.is_some() { Admits::Known } else { Admits::Anonymous };
    let terms = ListenerTerms { admits, hosts: None, trusted_proxies: None, ui: None };
    let peer = PeerInfo::default();
    let authenticated = auth.authenticate(&terms, &peer, &head);
    authenticated.now_or_never().expect("a key is found without waiting").unwrap()
}

fn open(tenants: TenantRule, classes: &[RouteClass]) -> Permission {
    let routes = classes.iter().copied().collect();
    Permission { tenants, routes, methods: None, subject: SubjectRule::Own, fixed_subject: false }
}

fn may(may: impl IntoIterator<Item = Permission>) -> Rules {
    Rules { may: may.into_iter().collect(), may_not: Vec::new() }
}

fn policy(tenants: &Tenants) -> Policy {
    use RouteClass::{Export, Read, Write};
    let one = |index, classes: &[RouteClass]| open(TenantRule::One(index), classes);
    let with = |method: Method, p| Permission { methods: Some(vec![method]), ..p };
    let rules = HashMap::from([
        ("reader", may([one(0, &[Read]), one(0, &[Export])])),
        ("rotator", may([one(1, RouteClass::ALL)])),
        ("nobody", may([])),
        ("everywhere", may([open(TenantRule::Any, &[Read])])),
        (
            "all-but-beta",
            Rules {
                may: vec![open(TenantRule::Any, RouteClass::ALL)],
                may_not: vec![
                    open(TenantRule::One(1), RouteClass::ALL),
                    with(Method::POST, open(TenantRule::Any, &[Write])),
                ],
            },
        ),
        ("getter", may([with(Method::GET, one(0, &[Read, Write]))])),
    ]);
    let rules = rules.into_iter().map(|(name, rules)| (CallerName::new(name), rules)).collect();
    Policy::new(tenants, BY_NAME, rules, None)
}

/// The decision of `policy` on a request for the route of this class on the tenant with this index.
fn ask(
    policy: &Policy,
    tenants: &Tenants,
    caller: &Caller,
    (index, method, class): (usize, &Method, RouteClass),
    headers: &[(&'static str, &str)],
) -> Result<Allowed, Forbidden> {
    let tenant = tenants.iter().nth(index).unwrap();
    let path = format!("{}/{}", tenant.api_base, class.as_str());
    let mut raw = format!("{method} {path} HTTP/1.1\r\nHost: gw\r\n");
    for (name, value) in headers {
        raw += &format!("{name}: {value}\r\n");
    }
    let raw = RawHead::read((raw + "\r\n").as_bytes()).unwrap();
    let head = RequestHead::parse(&raw).unwrap();
    let peer = PeerInfo { address: Some([192, 0, 2, 7].into()), ..PeerInfo::default() };
    policy.permit(caller, &peer, tenant, &head, policy.class_of(tenant, &head))
}

#[test]
fn every_caller_has_exactly_the_classes_that_its_rules_name() {
    let tenants = tenants();
    let policy = policy(&tenants);
    let open = |named: Option<&str>, index: usize, method: &Method| -> Vec<&str> {
        let caller = caller(named);
        let may = |class: &&RouteClass| {
            ask(&policy, &tenants, &caller, (index, method, **class), &[]).is_ok()
        };
        RouteClass::ALL.iter().filter(may).map(|class| class.as_str()).collect()
    };
    let (get, post) = (&Method::GET, &Method::POST);
    assert_eq!(open(Some("reader"), 0, get), ["read", "export"]);
    assert_eq!(open(Some("reader"), 1, get), [""; 0]);
    assert_eq!(open(Some("rotator"), 0, get), [""; 0]);
    assert_eq!(open(Some("rotator"), 1, get), ["read", "export", "write", "admin", "credentials"]);
    assert_eq!(open(Some("nobody"), 0, get), [""; 0]);
    assert_eq!(open(Some("unheard-of"), 0, get), [""; 0]);
    assert_eq!(open(Some("everywhere"), 0, get), ["read"]);
    assert_eq!(open(Some("everywhere"), 1, get), ["read"]);
    let all = ["read", "export", "write", "admin", "credentials"];
    assert_eq!(open(Some("all-but-beta"), 0, get), all);
    assert_eq!(open(Some("all-but-beta"), 0, post), ["read", "export", "admin", "credentials"]);
    assert_eq!(open(Some("all-but-beta"), 1, get), [""; 0]);
    assert_eq!(open(Some("getter"), 0, get), ["read", "write"]);
    assert_eq!(open(Some("getter"), 0, post), [""; 0]);
    assert_eq!(open(None, 0, get), ["read", "export", "write", "admin"]);
    assert_eq!(open(None, 1, get), ["read", "export", "write", "admin"]);
}

#[test]
fn anonymous_callers_have_only_what_is_said_of_them_once_anything_is() {
    let tenants = tenants();
    let only_read = may([open(TenantRule::One(0), &[RouteClass::Read])]);
    let policy = Policy::new(&tenants, BY_NAME, HashMap::new(), Some(only_read));
    let ask =
        |index, class| ask(&policy, &tenants, &caller(None), (index, &Method::GET, class), &[]);
    assert_eq!(ask(0, RouteClass::Read).unwrap().by, PermissionId::May(0));
    assert_eq!(ask(0, RouteClass::Write).unwrap_err(), Forbidden::Route(RouteClass::Write));
    assert_eq!(ask(1, RouteClass::Read).unwrap_err(), Forbidden::Tenant);
}

#[test]
fn a_refusal_says_what_is_closed_and_by_what() {
    let tenants = tenants();
    let policy = policy(&tenants);
    let refused = |named, index, method, class| {
        ask(&policy, &tenants, &caller(named), (index, method, class), &[]).unwrap_err()
    };
    let (get, post) = (&Method::GET, &Method::POST);
    assert_eq!(refused(Some("reader"), 1, get, RouteClass::Read), Forbidden::Tenant);
    let route = Forbidden::Route(RouteClass::Write);
    assert_eq!(refused(Some("reader"), 0, get, RouteClass::Write), route);
    let route = Forbidden::Route(RouteClass::Credentials);
    assert_eq!(refused(None, 0, get, RouteClass::Credentials), route);
    let method = Forbidden::Method(RouteClass::Write);
    assert_eq!(refused(Some("getter"), 0, post, RouteClass::Write), method);
    let closed = |index| Forbidden::Closed(PermissionId::MayNot(index));
    assert_eq!(refused(Some("all-but-beta"), 1, get, RouteClass::Read), closed(0));
    assert_eq!(refused(Some("all-but-beta"), 0, post, RouteClass::Write), closed(1));
}

/// Of two permissions that open a request, the first decides as whom it acts.
#[test]
fn the_first_permission_that_opens_a_request_counts_wherever_it_stands() {
    let tenants = tenants();
    let everything = |tenants| open(tenants, RouteClass::ALL);
    let (any, beta) = (TenantRule::Any, TenantRule::One(1));
    for (rules, alphas, betas) in [
        ([any.clone(), beta.clone()], 0, 0),
        ([beta.clone(), any.clone()], 1, 0),
        ([beta.clone(), beta], 9, 0),
    ] {
        let rules = HashMap::from([(CallerName::new("one"), may(rules.map(everything)))]);
        let policy = Policy::new(&tenants, BY_NAME, rules, None);
        for (index, expected) in [(0, alphas), (1, betas)] {
            let request = (index, &Method::GET, RouteClass::Read);
            match ask(&policy, &tenants, &caller(Some("one")), request, &[]) {
                Ok(allowed) => assert_eq!(allowed.by, PermissionId::May(expected)),
                Err(why) => assert_eq!((why, expected), (Forbidden::Tenant, 9)),
            }
        }
    }
}

#[test]
fn permits_are_equal_only_for_the_same_tenant_subject_and_credential() {
    let permit = |name, username, version| {
        let tenant = tenant(0, name, username, version);
        let tenants = Tenants::new(vec![tenant]).unwrap();
        let policy = Policy::new(&tenants, BY_NAME, HashMap::new(), None);
        policy.operator_permit(tenants.iter().next().unwrap()).clone()
    };
    let one = permit("alpha", "a@x", 1);
    assert_eq!(one, permit("alpha", "a@x", 1));
    assert_eq!(one.subject().as_str(), "a@x");
    assert_eq!(one.tenant().name.as_str(), "alpha");
    let others = [permit("beta", "a@x", 1), permit("alpha", "b@x", 1), permit("alpha", "a@x", 2)];
    for other in &others {
        assert_ne!(&one, other);
    }
    let distinct: HashSet<_> = others.into_iter().chain([one, permit("alpha", "a@x", 1)]).collect();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn a_permit_is_reissued_for_todays_tenant_if_the_credential_is_the_same() {
    let policy = |tenant: Tenant| {
        Policy::new(&Tenants::new(vec![tenant]).unwrap(), BY_NAME, HashMap::new(), None)
    };
    let before = policy(tenant(0, "alpha", "a@x", 1));
    let own = before.own.of(before.own.tenants().at(0).unwrap()).clone();
    let mapped = Permit::new(Arc::clone(own.tenant()), Subject::parse("b@x.example").unwrap());
    let today = policy(tenant(0, "alpha", "a@x", 1));
    for permit in [&own, &mapped] {
        let reissued = today.reissue()(permit).unchanged().unwrap();
        assert_eq!(&reissued, permit, "it is the same key");
        assert!(Arc::ptr_eq(reissued.tenant(), today.own.tenants().at(0).unwrap()));
    }
    let mut by_password = tenant(0, "alpha", "a@x", 1);
    by_password.credential.grant = Grant::Password;
    let by_password = policy(by_password).reissue();
    assert_eq!(by_password(&own).unchanged().as_ref(), Some(&own));
    assert!(matches!(by_password(&mapped), Reissued::Revoked), "a password is one user's");
    let other = policy(tenant(0, "beta", "a@x", 1)).reissue();
    assert!(matches!(other(&own), Reissued::Revoked));
    // Another version of the same identity is another secret.
    let another_secret = policy(tenant(0, "alpha", "a@x", 2));
    for permit in [&own, &mapped] {
        let next = another_secret.reissue()(permit).by_new_secret().unwrap();
        assert_eq!((next.subject(), next == *permit), (permit.subject(), false));
    }
    let mut without = tenant(0, "alpha", "a@x", 2);
    without.credential.secret = None;
    let mut another_user = tenant(0, "alpha", "b@x", 2);
    another_user.credential.identity = 1;
    for other in [without, another_user] {
        assert!(matches!(policy(other).reissue()(&own), Reissued::Revoked));
    }
}
