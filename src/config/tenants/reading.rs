//! Reads the tenants of one section or file, whether or not other threads read other files.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use crate::config::effective::EffectiveTenant;
use crate::config::explained::ExplainedTenant;
use crate::config::field::Field;
use crate::config::files::SeenFiles;
use crate::config::finding::{Noted, Notes, Position};
use crate::config::node::{Entry, Kind};
use crate::config::place::{Place, TENANTS};
use crate::config::quantity::Size;
use crate::config::secrets::SecretsToRead;
use crate::config::servers::Servers;
use crate::config::shown::tenant_file;
use crate::config::tenant_defaults::TenantDefaults;
use crate::config::{Check, References, excerpt, file, read};
use crate::secret_file::ResumeCommand;
use crate::tenant::{Tenant, TenantName};
use crate::throttle::Allowance;

/// The parts that the tenants of all files have in common.
#[derive(Clone, Copy)]
pub(super) struct TenantReading<'c, 'n> {
    pub(super) references: References,
    pub(super) secrets: &'c SecretsToRead<'c>,
    pub(super) servers: &'c Servers,
    pub(super) defaults: &'c TenantDefaults<'n>,
    /// Largest file of tenants.
    pub(super) file_size: Size,
    /// Whether the status API shows them.
    pub(super) is_shown: bool,
    /// The command that ends an unfinished rotation of a secret.
    pub(super) resume: &'c ResumeCommand,
}

/// A tenant as far as it could be read.
pub(super) struct ReadTenant {
    pub(super) name: Arc<str>,
    pub(super) position: Position,
    pub(super) own_user_only: Option<file::Grant>,
    /// The tenant, whose index is open, and whether it is complete.
    pub(super) tenant: Result<(Arc<Tenant>, Result<(), Noted>), Noted>,
    pub(super) allowance: Option<Allowance>,
    pub(super) effective: Option<Arc<EffectiveTenant>>,
}

/// The tenants of one section or file as far as they could be read.
pub(super) struct ReadTenants {
    pub(super) tenants: Result<Vec<ReadTenant>, Noted>,
    /// The tenant that is explained, if it is one of them.
    pub(super) explained: Option<ExplainedTenant>,
}

/// The same with all that was found and seen on the way.
pub(super) struct ReadTenantFile {
    pub(super) name: Arc<str>,
    pub(super) read: ReadTenants,
    pub(super) notes: Notes,
    pub(super) seen: SeenFiles,
}

impl<'n> TenantReading<'_, 'n> {
    /// Reads the file at `path`.
    pub(super) fn file(&self, path: &Path) -> ReadTenantFile {
        let name = tenant_file(path);
        let (notes, seen) = (Notes::default(), RefCell::default());
        let check = Check {
            notes: &notes,
            references: self.references,
            secrets: self.secrets,
            files: &seen,
            cas: &RefCell::default(),
            certificate_ends: &RefCell::default(),
            users: &RefCell::default(),
            resume: self.resume,
        };
        let read = self.text_of(check, path, &name);
        ReadTenantFile { name, read, notes, seen: seen.into_inner() }
    }

    fn text_of(&self, check: Check<'_>, path: &Path, name: &Arc<str>) -> ReadTenants {
        let failed = |noted| ReadTenants { tenants: Err(noted), explained: None };
        let text = match check.tenant_text(path, name, self.file_size) {
            Ok(text) => text,
            Err(noted) => return failed(noted),
        };
        let read = match check.tenant_tree(&text, name, self.file_size) {
            Ok(root) => {
                let at = Place::of_tenant_file(&root, name);
                match read::entries(&at, check.notes) {
                    Ok(entries) if entries.is_empty() => {
                        let finding = at.finding("found no tenant in this file", "at least one");
                        failed(check.notes.add(finding.hint(NO_TENANT)))
                    }
                    Ok(entries) => match entries.iter().find(|entry| is_section(entry)) {
                        None => self.section(check, &at, &entries),
                        Some(entry) => {
                            let found = "found the section `tenants` in a file of tenants";
                            let finding = at.key(&entry.key).key_finding(found, MAP_OF_TENANTS);
                            failed(check.notes.add(finding.hint(NO_SECTION)))
                        }
                    },
                    Err(noted) => failed(noted),
                }
            }
            Err(noted) => failed(noted),
        };
        check.notes.show_lines(name, |at| excerpt::excerpt(&text, at));
        read
    }

    /// Reads the entries of a section.
    pub(super) fn section<'f>(
        &self,
        check: Check<'_>,
        at: &Place<'f>,
        entries: &[&'f Entry],
    ) -> ReadTenants
    where
        'n: 'f,
    {
        let mut explained = None;
        let each = entries.iter().map(|entry| {
            self.tenant(check, &at.tenant(entry, self.defaults.section()), entry, &mut explained)
        });
        let tenants = Ok(each.collect());
        ReadTenants { tenants, explained }
    }

    fn tenant(
        &self,
        check: Check<'_>,
        at: &Place<'_>,
        entry: &Entry,
        of_explained: &mut Option<ExplainedTenant>,
    ) -> ReadTenant {
        let name = entry.key.as_str();
        let parsed = check.name(at, name);
        // With defaults, a tenant may be its name alone.
        let own = if at.is_null() && self.defaults.section().is_some() {
            Field::Given(file::Tenant::of_no_keys())
        } else {
            read::read_at(at, check.notes)
        };
        let tenant = own.required(at, "a mapping", check.notes);
        let tenant = tenant.and_then(|own| self.defaults.complete(at, name, own));
        let given = tenant.as_ref().ok();
        let own_user_only = given.and_then(super::grant_of_own_user);
        let effective = given.filter(|_| self.is_shown).map(EffectiveTenant::of).map(Arc::new);
        if let Some(tenant) = given.filter(|_| check.secrets.explains(name)) {
            *of_explained = Some(ExplainedTenant::of(at, tenant));
        }
        let shared = parsed.as_ref().map_or_else(|_| name.into(), TenantName::shared);
        let mut allowance = None;
        let tenant = tenant.and_then(|mut tenant| {
            let limits = std::mem::take(&mut tenant.limits);
            allowance = check.allowance(&at.key("limits"), limits).ok().flatten();
            let (tenant, complete) = check.tenant(at, parsed, tenant, self.servers)?;
            Ok((Arc::new(tenant), complete))
        });
        ReadTenant {
            name: shared,
            position: entry.position,
            own_user_only,
            tenant,
            allowance,
            effective,
        }
    }
}

/// Whether an entry is the section that the configuration file has, and no tenant of that name: all
/// in it are mappings, or nothing, and none has the name of a key of a tenant.
fn is_section(entry: &Entry) -> bool {
    let Kind::Mapping(inner) = &entry.value.kind else { return false };
    let is_tenant = |entry: &Entry| {
        let is_key = ["cors", "embed", "limits", "credential"].contains(&entry.key.as_str());
        !is_key && (matches!(entry.value.kind, Kind::Mapping(_)) || entry.value.is_null())
    };
    entry.key == TENANTS && !inner.entries.is_empty() && inner.entries.iter().all(is_tenant)
}

const MAP_OF_TENANTS: &str = "names of tenants, each with its keys below";
const NO_SECTION: &str =
    "such a file is the map itself: remove the line `tenants:`, and indent the lines below it less";
const NO_TENANT: &str =
    "a file that is cut short removes no tenants; to remove them, remove the file";
