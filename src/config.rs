//! The configuration file, parsed into values that cannot be wrong. All faults of a file are found
//! at once, each finding has its place, and none shows a secret. This module does not know the uses
//! of the values.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::caller::{CallerAuth, CallerName};
use crate::plain_file;
use crate::plain_file::limit::{MAX_CONFIGURATION, MAX_SECRET};
use crate::policy::Policy;
use crate::secret::{Secret, SecretError, SecretRef};
use crate::secret_file::ResumeCommand;
use crate::store::StoreSettings;
use crate::telemetry::{AccessLogSettings, LogSink, TenantSeries};
use crate::tenant::{Server, Tenants};
use crate::throttle::Throttles;
use crate::traces::TraceSettings;
use crate::trust::Trust;

mod admin;
mod callers;
mod certificate_ends;
mod cors;
mod credentials;
mod effective;
mod embed;
mod embed_claims;
mod excerpt;
mod explained;
mod field;
mod file;
mod file_pattern;
mod files;
mod finding;
mod in_vain;
mod jwt;
mod known_tenants;
mod limits;
mod listeners;
mod logs;
mod metrics;
mod network;
mod node;
mod pem;
mod permissions;
mod place;
mod proxies;
mod quantity;
mod read;
mod redact;
mod schema;
mod secrets;
mod server_headers;
mod server_proxy;
mod server_url;
mod servers;
mod shown;
mod socket_access;
mod subjects;
mod tenant_defaults;
mod tenant_files;
mod tenants;
mod tls;
mod token_store;
mod traces;
mod trust;
mod ui;
mod warnings;

pub use admin::{AdminSettings, AdminToken};
pub use certificate_ends::{CertificateEnd, CertificateEnds};
pub use effective::{EffectiveConfig, EffectiveTenant};
pub use explained::{ExplainedKey, ExplainedTenant, KeyOrigin};
pub use file_pattern::FilePattern;
use files::SeenFiles;
pub use files::{Digest, Files, LookedAgain};
pub use finding::{Excerpt, Finding, Findings, Position, UnusableSecret};
use finding::{Noted, Notes};
use in_vain::ListenerWays;
pub use known_tenants::KnownTenants;
use listeners::ListenerProofs;
pub use listeners::{ListenAddress, ListenerSettings, SocketAccess, TlsFiles};
use node::Node;
use place::Place;
use quantity::Size;
use secrets::SecretsToRead;
pub use secrets::{TenantSecrets, Unchanged};
use tenants::TenantSections;
pub use tenants::{PlacedTenants, TenantPlace};
pub use warnings::is_about_rotation;

/// All settings of a gateway, checked.
#[derive(Debug)]
pub struct Settings {
    /// Where clients connect; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// Where health checks and metrics are served.
    pub admin: AdminSettings,
    /// All servers, in the order of the file.
    pub servers: Vec<Arc<Server>>,
    /// All tenants, in the order of the file; at least one.
    pub tenants: Tenants,
    /// Authenticates callers.
    pub caller_auth: CallerAuth,
    /// Decides what callers may do.
    pub policy: Policy,
    /// Names of the callers, sorted.
    pub callers: Vec<CallerName>,
    /// Bounds on what single callers and tenants use up.
    pub throttles: Throttles,
    /// Indices of the tenants whose tokens are fetched ahead of requests.
    pub warm_up: Vec<usize>,
    /// Bounds on what clients may use up.
    pub limits: Limits,
    /// The files that all this was read from.
    pub files: Files,
    /// The tenants that the next reading can take over.
    pub known: Arc<KnownTenants>,
    /// The access log.
    pub access_log: AccessLogSettings,
    /// Where the audit log goes, if there is to be one.
    pub audit: Option<LogSink>,
    /// The tenants that metrics have series of.
    pub metrics: MetricsSettings,
    /// Which requests are recorded, and where their spans go; `None` if there are no traces.
    pub traces: Option<TraceSettings>,
    /// The token store; `None` if the gateway is alone.
    pub token_store: Option<StoreSettings>,
    /// When the certificates in those files expire.
    pub certificate_ends: CertificateEnds,
    /// The configuration as the status API shows it; `None` if that is off.
    pub effective: Option<Arc<EffectiveConfig>>,
    /// Whether tenants are in files of their own, too.
    pub has_tenant_files: bool,
    /// Where each tenant is, for [`TenantSecrets::NoneButPlace`].
    pub placed: PlacedTenants,
    /// Warnings that the operator should know of. They are no faults.
    pub warnings: Findings,
    /// The secrets of tenants that cannot be used. All other tenants can be served.
    pub unusable_secrets: Vec<UnusableSecret>,
    /// Whether a start needs the secrets of all tenants.
    pub strict_start: bool,
    /// The command that ends an unfinished rotation of a secret.
    pub resume: ResumeCommand,
}

/// The tenants that metrics have series of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Whether each has its own.
    pub tenants: TenantSeries,
    /// Most tenants that have a histogram of their own.
    pub tenant_durations: usize,
}

/// Bounds on what clients may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most client connections at the same time.
    pub max_connections: usize,
    /// For a whole request head to arrive.
    pub request_head_timeout: Duration,
    /// Most memory that all unfinished request heads, and all requests that wait for the keys of an
    /// issuer, hold together, in bytes.
    pub unfinished_heads: usize,
    /// For the next request on a connection.
    pub keep_alive_timeout: Duration,
    /// Longest silence of a client within a body, and longest time for which it takes nothing of a
    /// response.
    pub body_timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body: u64,
    /// From the signal to stop until no more connections are accepted; may be zero.
    pub lame_duck: Duration,
    /// For running requests to end when the gateway stops.
    pub drain_timeout: Duration,
    /// Most tokens that are kept at the same time.
    pub token_cache_entries: u64,
}

impl Settings {
    /// Reads and checks the file at `path`, and the secrets, certificates and keys it refers to.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn load(path: &Path) -> Result<Self, Findings> {
        Self::read(path).1
    }

    /// The same, with the files that were looked at, readable or not.
    pub fn read(path: &Path) -> (Files, Result<Self, Findings>) {
        Self::read_with(path, TenantSecrets::All)
    }

    /// The same with the secrets of these tenants.
    pub fn read_with(path: &Path, secrets: TenantSecrets<'_>) -> (Files, Result<Self, Findings>) {
        let secrets = SecretsToRead::new(secrets);
        let seen = RefCell::default();
        let name = path.display().to_string();
        let read = text_of(path, &seen)
            .and_then(|text| Self::build(&text, &name, References::Read, &secrets, &seen));
        let files = seen.into_inner().finish();
        let read = read.map(|settings| Self { files: files.clone(), ..settings });
        (files, read)
    }

    /// Checks `text`, and the secrets, certificates and keys it refers to; `file` is its name in
    /// findings.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn parse(text: &str, file: &str) -> Result<Self, Findings> {
        let (secrets, seen) = (SecretsToRead::new(TenantSecrets::All), RefCell::default());
        let settings = Self::build(text, file, References::Read, &secrets, &seen)?;
        Ok(Self { files: seen.into_inner().finish(), ..settings })
    }

    /// Checks the file at `path` without the files and variables it refers to: for files that are
    /// written in one place and used in another. It gives warnings and no settings.
    ///
    /// # Errors
    /// All faults of the file.
    pub fn check_without_secrets(path: &Path) -> Result<Findings, Findings> {
        Self::read_without_secrets(path).1
    }

    /// The same, and the files that were read.
    pub fn read_without_secrets(path: &Path) -> (Files, Result<Findings, Findings>) {
        let (name, seen) = (path.display().to_string(), RefCell::default());
        let secrets = SecretsToRead::new(TenantSecrets::All);
        let read = text_of(path, &seen)
            .and_then(|text| Self::build(&text, &name, References::Ignore, &secrets, &seen))
            .map(|settings| settings.warnings);
        (seen.into_inner().finish(), read)
    }

    /// The section `admin` of the file at `path`. Faults of other sections are no errors: a gateway
    /// serves on with its former configuration while its file is wrong.
    ///
    /// # Errors
    /// When the file cannot be read, or the section has faults.
    pub fn admin_of(path: &Path) -> Result<AdminSettings, Findings> {
        let (notes, files) = (Notes::default(), RefCell::default());
        let text = text_of(path, &files)?;
        let check = Check {
            notes: &notes,
            references: References::Ignore,
            secrets: &SecretsToRead::new(TenantSecrets::None),
            files: &files,
            cas: &RefCell::default(),
            certificate_ends: &RefCell::default(),
            users: &RefCell::default(),
            resume: &ResumeCommand::new(path),
        };
        let read = Node::read(&text, &notes).and_then(|root| {
            let file = read::read::<file::File>(&root, &notes)?;
            check.admin(&Place::root(&root).key("admin"), file.admin)
        });
        read.or_else(|cause| {
            let finished = notes.finish::<Infallible>(Err(cause), &path.display().to_string());
            finished.map(|(never, ..)| match never {})
        })
    }

    /// The keys of a tenant of the file at `path`; `None` if it has gone meanwhile. Of
    /// `tenant_files`, only the file of that name is read. Faults of all else are no errors.
    ///
    /// # Errors
    /// When the file at `path` cannot be read, or is no configuration.
    pub fn explained(
        path: &Path,
        tenant: &str,
        file: Option<&str>,
    ) -> Result<Option<ExplainedTenant>, Findings> {
        let (notes, files) = (Notes::default(), RefCell::default());
        let text = text_of(path, &files)?;
        let check = Check {
            notes: &notes,
            references: References::Ignore,
            secrets: &SecretsToRead::new(TenantSecrets::Explain(tenant, file)),
            files: &files,
            cas: &RefCell::default(),
            certificate_ends: &RefCell::default(),
            users: &RefCell::default(),
            resume: &ResumeCommand::new(path),
        };
        let read = Node::read(&text, &notes).and_then(|root| {
            let (at, file) = (Place::root(&root), read::read::<file::File>(&root, &notes)?);
            let servers = check.servers(&at.key("servers"), file.servers);
            let limits = file.limits.as_ref().given();
            let sections = TenantSections {
                tenants: file.tenants,
                files: file.tenant_files,
                defaults: file.tenant_defaults,
                file_size: tenant_file_size(limits),
                is_shown: false,
            };
            Ok(check.tenants(&at, sections, &servers).explained)
        });
        read.or_else(|cause| {
            let finished = notes.finish::<Infallible>(Err(cause), &path.display().to_string());
            finished.map(|(never, ..)| match never {})
        })
    }

    /// The JSON Schema of the file.
    pub fn schema() -> String {
        schema::text()
    }

    /// The JSON Schema of a file of `tenant_files`.
    pub fn tenant_file_schema() -> String {
        schema::tenant_file_text()
    }

    fn build(
        text: &str,
        file: &str,
        references: References,
        secrets: &SecretsToRead<'_>,
        files: &RefCell<SeenFiles>,
    ) -> Result<Self, Findings> {
        let notes = Notes::default();
        let built = if text.len() > MAX_CONFIGURATION {
            Err(notes.add(too_large()))
        } else {
            let (cas, certificate_ends) = (&RefCell::default(), &RefCell::default());
            let users = &RefCell::default();
            let (notes, resume) = (&notes, &ResumeCommand::new(Path::new(file)));
            let check =
                Check { notes, references, secrets, files, cas, certificate_ends, users, resume };
            Node::read(text, notes).and_then(|root| check.settings(&root))
        };
        let built = notes
            .finish(built, file)
            .map_err(|faults| faults.with_lines(|at| excerpt::excerpt(text, at)));
        let (settings, warnings, unusable_secrets) = built?;
        Ok(Self { warnings, unusable_secrets, ..settings })
    }
}

/// The treatment of the files and variables that a configuration refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum References {
    Read,
    Ignore,
}

/// One check of a whole file. It has a method for each section of the file. A method notes every
/// fault and returns `Noted` for it, so that the other sections are checked all the same.
#[derive(Clone, Copy)]
struct Check<'n> {
    notes: &'n Notes,
    references: References,
    secrets: &'n SecretsToRead<'n>,
    files: &'n RefCell<SeenFiles>,
    /// The CA files that were read, by their paths.
    cas: &'n RefCell<HashMap<String, Trust>>,
    /// The ends of all certificates that were read.
    certificate_ends: &'n RefCell<CertificateEnds>,
    /// The names of users: thousands of tenants may have one and the same.
    users: &'n RefCell<HashSet<Arc<str>>>,
    /// The command that ends an unfinished rotation of a secret.
    resume: &'n ResumeCommand,
}

impl Check<'_> {
    fn settings(self, root: &Node) -> Result<Settings, Noted> {
        let at = Place::root(root);
        let file = read::read::<file::File>(root, self.notes)?;
        let status = file.admin.as_ref().given().and_then(|admin| admin.status.as_ref().given());
        let is_shown = status == Some(&true);
        let effective = is_shown.then(|| EffectiveConfig::sections_of(&file));
        let limits = file.limits.as_ref().given();
        let file_size = tenant_file_size(limits);
        let admin = self.admin(&at.key("admin"), file.admin);
        let token_file = admin.as_ref().ok().and_then(AdminSettings::token_file_to_name);
        let resume = self.resume.clone().with_token_file(token_file);
        let servers = self.servers(&at.key("servers"), file.servers);
        let has_tenant_files = file.tenant_files.as_ref().given().is_some();
        let sections = TenantSections {
            tenants: file.tenants,
            files: file.tenant_files,
            defaults: file.tenant_defaults,
            file_size,
            is_shown,
        };
        let mut tenants = Check { resume: &resume, ..self }.tenants(&at, sections, &servers);
        let shown = std::mem::take(&mut tenants.effective);
        let effective = effective.map(|sections| Arc::new(sections.with_tenants(shown)));
        let known = Arc::new(std::mem::take(&mut tenants.known));
        let proofs = ListenerProofs::of(&file.listeners);
        let ways = ListenerWays::of(&file.listeners);
        let listeners = self.listeners(
            &at,
            file.listeners,
            &file.callers,
            admin.as_ref().ok().map(|admin| &admin.address),
            (&servers, &tenants),
        );
        let callers = self.callers(&at, file.callers, file.api_key_header, &tenants, &proofs);
        self.warn_of_vain(&at, &ways, &servers, &tenants, &callers);
        let mut names: Vec<_> = callers.rules.keys().cloned().collect();
        names.sort_unstable();
        let warm_up = self.warm_up(&at.key("warm_up"), file.warm_up, &tenants);
        let limits = self.limits(&at.key("limits"), file.limits);
        let audit = self.audit(&at.key("audit"), file.audit);
        let audit_sink = audit.as_ref().ok().and_then(Option::as_ref);
        let access_log = self.access_log(&at.key("access_log"), file.access_log, audit_sink);
        let metrics = self.metrics(&at.key("metrics"), file.metrics);
        let traces = self.traces(&at.key("traces"), file.traces);
        let token_store = self.token_store(&at.key("token_store"), file.token_store);
        let strict_start =
            file.strict_start.required(&at.key("strict_start"), "`true`, `false`", self.notes);
        let throttles = Throttles::new(
            callers.allowances,
            callers.anonymous_allowance,
            tenants.allowances().iter().cloned(),
        );
        let placed = if self.secrets.keeps_place() {
            std::mem::take(&mut tenants.by_name)
        } else {
            PlacedTenants::default()
        };
        let tenants = tenants.into_domain()?;
        Ok(Settings {
            listeners: listeners?,
            admin: admin?,
            servers: servers.into_domain()?,
            policy: Policy::new(&tenants, crate::boldbi::ROUTES, callers.rules, callers.anonymous),
            tenants,
            caller_auth: callers.auth?,
            callers: names,
            throttles,
            warm_up: warm_up?,
            limits: limits?,
            files: Files::default(),
            known,
            access_log: access_log?,
            audit: audit?,
            metrics: metrics?,
            traces: traces?,
            token_store: token_store?,
            certificate_ends: self.certificate_ends.borrow().clone(),
            effective,
            has_tenant_files,
            placed,
            warnings: Findings::new("", Vec::new()),
            unusable_secrets: Vec::new(),
            strict_start: strict_start?,
            resume,
        })
    }

    /// The name of a user, once in memory.
    fn user(self, name: String) -> Arc<str> {
        let mut users = self.users.borrow_mut();
        if let Some(known) = users.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        users.insert(Arc::clone(&name));
        name
    }

    /// The content of the file at `path`, at most `max` bytes.
    fn content(self, path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let read = plain_file::read_known(path, max);
        self.files.borrow_mut().saw(path, read.as_ref());
        read.map(|read| read.content)
    }

    /// The secret that is stored at `source`; a stand-in when references are not read.
    fn secret(self, source: &SecretRef) -> Result<Secret, SecretError> {
        self.secret_and_mode(source).0
    }

    /// The same, and whether it is in a file that was read now and whose own mode lets every user
    /// read it; `None` if it was not read now.
    fn secret_and_mode(self, source: &SecretRef) -> (Result<Secret, SecretError>, Option<bool>) {
        match (self.references, source) {
            (References::Ignore, _) => (Ok(Secret::new(String::new())), None),
            (References::Read, SecretRef::Env(_)) => (source.read(), None),
            (References::Read, SecretRef::File(path)) => {
                if let Some(secret) = self.secrets.kept(path, self.files) {
                    return (Ok(secret.clone()), None);
                }
                let read = plain_file::read_known(path, MAX_SECRET);
                // The file counts as looked at even if it holds no secret, so that a later change
                // of it is noticed.
                self.files.borrow_mut().saw(Arc::clone(path), read.as_ref());
                let has_open_mode = read.as_ref().ok().map(|read| read.has_open_mode);
                (Secret::from_file(read.map(|read| read.content)), has_open_mode)
            }
        }
    }
}

/// Largest file of `tenant_files`.
fn tenant_file_size(limits: Option<&file::Limits>) -> Size {
    let given = limits.and_then(|limits| limits.tenant_file_size.as_ref().given());
    given.copied().unwrap_or(Size(MAX_CONFIGURATION as u64))
}

fn text_of(path: &Path, files: &RefCell<SeenFiles>) -> Result<String, Findings> {
    let failed = |finding| Findings::new(&path.display().to_string(), vec![finding]);
    let read = plain_file::read_known(path, MAX_CONFIGURATION);
    files.borrow_mut().saw(path, read.as_ref());
    let mut bytes = read.map(|read| read.content).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => failed(too_large()),
        kind => {
            let finding = Finding::whole_file(format!("cannot be read: {error}"), "a file");
            failed(finding.hint_if((kind == io::ErrorKind::NotFound).then_some(NO_CONFIGURATION)))
        }
    })?;
    String::from_utf8(std::mem::take(&mut *bytes))
        .map_err(|_| failed(Finding::whole_file("found bytes that are not UTF-8", "UTF-8 text")))
}

const NO_CONFIGURATION: &str = "create it, or name another file by `--config FILE`; `config/` in boldgate's sources has \
                                annotated examples, and `boldgate demo` needs none";

const TOO_LARGE: &str = "put tenants into files of their own (`tenant_files`), whose bound is \
                         `limits.tenant_file_size`";

fn too_large() -> Finding {
    Finding::whole_file("found more than 10 MiB", "at most 10 MiB").hint(TOO_LARGE)
}
