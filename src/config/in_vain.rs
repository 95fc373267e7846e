//! Warnings about settings that are valid, and that no request can ever use: a permission for a
//! tenant that has no such routes, a tenant that no page or user can reach. Beside them, an
//! installation that every process of this machine administers.

use std::collections::HashSet;

use crate::policy::{Permission, RouteClass, RouteClasses, Rules, SubjectRule, TenantRule};
use crate::tenant::Tenant;

use super::Check;
use super::callers::{ANONYMOUS, FoundCallers};
use super::field::Field;
use super::file;
use super::finding::Finding;
use super::place::Place;
use super::servers::Servers;
use super::tenants::FoundTenants;

/// The ways on which the listeners of a file let requests in.
pub(super) struct ListenerWays {
    /// The numbers of the listeners at which every process of this machine is a client without a
    /// proof.
    open: Vec<usize>,
    /// Whether one of them is for some hosts alone.
    check_hosts: bool,
    /// The servers that they name under `ui`.
    ui: HashSet<String>,
}

impl ListenerWays {
    pub(super) fn of(listeners: &Field<Vec<Field<file::Listener>>>) -> Self {
        let all = listeners.as_ref().given().into_iter().flatten();
        let all =
            || all.clone().enumerate().filter_map(|(n, one)| Some((n, one.as_ref().given()?)));
        let names = |listener: &file::Listener| {
            let names = listener.ui.as_ref().given().into_iter().flatten();
            names.filter_map(|name| name.as_ref().given().cloned()).collect::<Vec<_>>()
        };
        Self {
            open: all().filter(|(_, one)| is_open(one)).map(|(number, _)| number).collect(),
            check_hosts: all().any(|(_, one)| checks_hosts(one)),
            ui: all().flat_map(|(_, one)| names(one)).collect(),
        }
    }
}

fn is_anonymous(listener: &file::Listener) -> bool {
    listener.callers.as_ref().given() == Some(&file::Callers::Anonymous)
}

fn is_socket(listener: &file::Listener) -> bool {
    listener.address.as_ref().given().is_some_and(|address| address.starts_with("unix:"))
}

/// Whether every process of this machine is an anonymous client. The mode of a socket's file lets
/// an owner and a group in alone, unless it says otherwise.
fn is_open(listener: &file::Listener) -> bool {
    let for_all = |mode: &String| mode.ends_with(['6', '7']);
    is_anonymous(listener)
        && (!is_socket(listener) || listener.mode.as_ref().given().is_some_and(for_all))
}

/// Whether the host of a request is known to be the listener's own.
fn checks_hosts(listener: &file::Listener) -> bool {
    !listener.hosts.is_missing() || is_anonymous(listener) && !is_socket(listener)
}

impl Check<'_> {
    /// A warning about a permission for routes that its tenants do not have.
    pub(super) fn warn_of_permission(
        self,
        at: &Place<'_>,
        rule: &TenantRule,
        routes: RouteClasses,
        tenants: &FoundTenants,
    ) {
        let at = at.key("routes");
        let one = match rule {
            TenantRule::One(index) => match tenants.at(*index) {
                Some(tenant) => Some(tenant),
                None => return,
            },
            TenantRule::Any | TenantRule::Claimed(_) => None,
        };
        let is_of_installation =
            one.map_or(tenants.are_installations(), |tenant| tenant.is_installation());
        if is_of_installation && !administers(routes) {
            let problem = "found no class that a request to a whole installation has: all are \
                           `admin` or `credentials`";
            self.notes.warn(at.finding(problem, ADMINISTERING));
        }
        let embeds = one.map_or(tenants.embed(), |tenant| tenant.embed.is_some());
        if routes.contains(RouteClass::Embed) && !embeds {
            let problem = match one {
                Some(tenant) => format!(
                    "found the class `embed`, and the tenant `{}` has no `embed`: no page can \
                     embed anything",
                    tenant.name
                ),
                None => "found the class `embed`, and no tenant has `embed`".to_owned(),
            };
            self.notes.warn(at.finding(problem, "`embed` for a tenant that has the key `embed`"));
        }
    }

    /// Warnings about what is only seen in the file as a whole.
    pub(super) fn warn_of_vain(
        self,
        root: &Place<'_>,
        listeners: &ListenerWays,
        servers: &Servers,
        tenants: &FoundTenants,
        callers: &FoundCallers,
    ) {
        for server in servers.passing_ui().filter(|server| !listeners.ui.contains(*server)) {
            let at = root.key("servers").key(server).key("ui");
            let problem = "found `pass`, and no listener has the server under `ui`: nothing of it \
                           is passed on";
            self.notes.warn(at.finding(problem, "`pass` with the server under `ui` of a listener"));
        }
        self.warn_of_subjects(&root.key("callers"), callers);
        let viewers = Viewers::of(callers);
        for tenant in tenants.iter() {
            let Some(embed) = &tenant.embed else { continue };
            let is_called = embed.masked
                || !tenant.origins.is_empty()
                || !tenant.hosts.is_empty()
                || listeners.check_hosts;
            if !is_called {
                let problem =
                    "found it for a tenant without `cors.origins`: no web page can call it";
                self.warn_of_tenant(root, tenants, tenant, &["embed"], |at| {
                    at.key_finding(problem, ORIGINS).hint(OF_PAGES)
                });
            }
            if embed.masked && !viewers.have(tenant) {
                let problem = "found masked mode, and no caller with `read` for the tenant has a \
                               subject: no page can show anything";
                self.warn_of_tenant(root, tenants, tenant, &["embed", "masked"], |at| {
                    at.finding(problem, SUBJECTS)
                });
            }
        }
        self.warn_of_installations(root, listeners, tenants, callers);
    }

    /// Warnings about permissions to embed that are for callers with a certificate, of callers
    /// without one: another listener asks for certificates.
    fn warn_of_subjects(self, at: &Place<'_>, callers: &FoundCallers) {
        let known = callers.rules.iter();
        let without = known.filter(|(name, _)| !callers.by_certificate.contains(*name));
        let without = without.map(|(name, rules)| (name.as_str(), rules));
        let anonymous = callers.anonymous.iter().map(|rules| (ANONYMOUS, rules));
        for (name, rules) in without.chain(anonymous) {
            for (number, permission) in rules.may.iter().enumerate() {
                let is_own = matches!(permission.subject, SubjectRule::Own);
                if is_own
                    && !permission.fixed_subject
                    && permission.routes.contains(RouteClass::Embed)
                {
                    let at = at.key(name).key("may").item(number).key("routes");
                    let problem = "found the class `embed` without a subject at a caller without \
                                   `certificates`: no page can embed anything";
                    self.notes.warn(at.finding(problem, "`embed` with `subject`"));
                }
            }
        }
    }

    /// Warnings about listeners that let every process of this machine administer an installation.
    fn warn_of_installations(
        self,
        root: &Place<'_>,
        listeners: &ListenerWays,
        tenants: &FoundTenants,
        callers: &FoundCallers,
    ) {
        if listeners.open.is_empty() {
            return;
        }
        let rules = callers.anonymous.as_ref();
        let mut open = tenants.iter().filter(|tenant| {
            tenant.is_installation() && rules.is_none_or(|r| administer(r, tenant))
        });
        let Some(first) = open.next() else { return };
        let more = match open.count() {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        for number in &listeners.open {
            let at = root.key("listeners").item(*number).key("callers");
            let problem = format!(
                "found `anonymous`, and the tenant `{}`{more} is a whole installation: every \
                 process of this machine administers it",
                first.name
            );
            self.notes.warn(at.finding(problem, NOT_OPEN).hint(CLOSE));
        }
    }

    /// A warning about a key of a tenant, wherever the tenant stands.
    fn warn_of_tenant(
        self,
        root: &Place<'_>,
        tenants: &FoundTenants,
        tenant: &Tenant,
        keys: &[&str],
        finding: impl FnOnce(&Place<'_>) -> Finding,
    ) {
        let at = root.key("tenants").key(tenant.name.as_str());
        let at = keys.iter().fold(at, |at, key| at.key(key));
        let finding = finding(&at);
        // The text of another file is not at hand any more, but the line of the tenant is known.
        let place = tenants.by_name.get(tenant.name.as_str());
        let elsewhere = place.and_then(|place| Some((place.file.clone()?, place.position)));
        self.notes.warn(match elsewhere {
            Some((file, position)) => {
                Finding { file: Some(file), position: Some(position), ..finding }
            }
            None => finding,
        });
    }
}

/// The tenants that some caller may look at as a user of its own.
struct Viewers {
    of_any: bool,
    of: HashSet<usize>,
}

impl Viewers {
    fn of(callers: &FoundCallers) -> Self {
        let by_certificate = |name| callers.by_certificate.contains(name);
        let known = callers.rules.iter().map(|(name, rules)| (rules, by_certificate(name)));
        let all = known.chain(callers.anonymous.iter().map(|rules| (rules, false)));
        let all = all.flat_map(|(rules, proven)| rules.may.iter().map(move |may| (may, proven)));
        let mut found = Self { of_any: false, of: HashSet::new() };
        for (permission, proven) in all {
            let has_subject = match permission.subject {
                SubjectRule::Own => permission.fixed_subject || proven,
                SubjectRule::Mapped(_) => true,
            };
            if has_subject && SHOWING.iter().any(|class| permission.routes.contains(*class)) {
                match permission.tenants {
                    TenantRule::One(index) => drop(found.of.insert(index)),
                    TenantRule::Any | TenantRule::Claimed(_) => found.of_any = true,
                }
            }
        }
        found
    }

    fn have(&self, tenant: &Tenant) -> bool {
        self.of_any || self.of.contains(&tenant.index)
    }
}

fn administers(routes: RouteClasses) -> bool {
    routes.contains(RouteClass::Admin) || routes.contains(RouteClass::Credentials)
}

/// Whether these rules let a client without a proof administer a tenant.
fn administer(rules: &Rules, tenant: &Tenant) -> bool {
    let is_about = |rule: &Permission| match rule.tenants {
        TenantRule::Any => true,
        TenantRule::One(index) => index == tenant.index,
        // A client without a proof has no claims.
        TenantRule::Claimed(_) => false,
    };
    let opens = |class| {
        let closed = rules
            .may_not
            .iter()
            .any(|rule| is_about(rule) && rule.methods.is_none() && rule.routes.contains(class));
        !closed && rules.may.iter().any(|rule| is_about(rule) && rule.routes.contains(class))
    };
    opens(RouteClass::Admin) || opens(RouteClass::Credentials)
}

/// The classes of the routes of masked mode.
const SHOWING: [RouteClass; 3] = [RouteClass::Read, RouteClass::Export, RouteClass::Write];
const ADMINISTERING: &str = "`admin` or `credentials` among them";
const ORIGINS: &str = "`embed` with the origins of its pages under `cors.origins`";
const OF_PAGES: &str = "the browser adds `Origin` to each call of a page; that of the gateway's own address \
                        counts as listed where `hosts` of the tenant or of a listener names its host";
const SUBJECTS: &str = "`true` with a permission that has `read` and `subject`, with `fixed_subject: true`, or for a \
                        caller with a client certificate";
const NOT_OPEN: &str = "`required`; `anonymous` beside `callers.anonymous` without `admin` for this tenant; a Unix \
                        socket of the mode `0660`";
const CLOSE: &str = "give a key or a process (`unix`) of its own to the caller who administers, and name \
                     under `callers.anonymous.may` what all others need";
