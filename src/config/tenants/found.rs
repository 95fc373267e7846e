//! The tenants of all files as far as they could be read.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::reading::{ReadTenant, ReadTenants};
use super::reuse::is_lasting;
use crate::config::Check;
use crate::config::effective::EffectiveTenant;
use crate::config::explained::ExplainedTenant;
use crate::config::file;
use crate::config::finding::{Finding, Noted, Position};
use crate::config::known_tenants::{KnownTenant, KnownTenantFile, KnownTenants};
use crate::config::place::Place;
use crate::config::servers::{Servers, unknown_name};
use crate::config::shown::tenant_file;
use crate::tenant::{Grant, Tenant, TenantName, Tenants};
use crate::throttle::Allowance;

/// The tenants as far as they could be read.
pub(in crate::config) struct FoundTenants {
    names: Vec<Arc<str>>,
    pub(in crate::config) by_name: PlacedTenants,
    /// The index of each tenant, in the order of the files.
    indices: Vec<usize>,
    /// Whether all files could be read, so that a name that is not here is unknown.
    section: Result<(), Noted>,
    tenants: Result<Tenants, Noted>,
    /// By index, whether the grant gives tokens of its own user alone.
    own_user_only: Vec<Option<file::Grant>>,
    /// Whether one of them has `embed`, or may have it.
    embed: bool,
    allowances: Vec<(TenantName, Allowance)>,
    /// For the status API.
    pub(in crate::config) effective: HashMap<Arc<str>, Arc<EffectiveTenant>>,
    /// The tenant that is explained.
    pub(in crate::config) explained: Option<ExplainedTenant>,
    /// For the next reading.
    pub(in crate::config) known: KnownTenants,
}

/// Where a tenant stands.
#[derive(Clone, Debug)]
pub struct TenantPlace {
    /// Its number among all tenants, in the order of the files.
    number: usize,
    /// The file of `tenant_files` that it is in; `None` for the configuration file.
    pub file: Option<Arc<str>>,
    /// Where it is there.
    pub position: Position,
}

/// The place of each tenant, by its name.
pub type PlacedTenants = HashMap<Arc<str>, TenantPlace>;

impl TenantPlace {
    /// In words; without its file if a finding in the file `reader` names it.
    fn seen_from(&self, reader: Option<&Arc<str>>) -> String {
        let Position { line, column } = self.position;
        match &self.file {
            file if file.as_ref() == reader => format!("on line {line}"),
            Some(file) => format!("in {file}:{line}:{column}"),
            None => format!("in the configuration file, line {line}"),
        }
    }
}

/// Collects tenants while they are read.
pub(super) struct TenantsBuilder<'c> {
    /// The place of the section `tenants`.
    at: &'c Place<'c>,
    check: Check<'c>,
    names: Vec<Arc<str>>,
    by_name: PlacedTenants,
    found: Vec<CollectedTenant>,
    files: Vec<FileRecord>,
    /// Whether all tenants are complete.
    whole: Result<(), Noted>,
    pub(super) section: Result<(), Noted>,
    own_user_only: Vec<Option<file::Grant>>,
    allowances: Vec<(TenantName, Allowance)>,
    effective: HashMap<Arc<str>, Arc<EffectiveTenant>>,
    explained: Option<ExplainedTenant>,
}

/// A file whose tenants are added.
pub(super) struct AddedFile<'p> {
    pub(super) path: &'p Path,
    /// In findings.
    pub(super) name: Arc<str>,
    /// The warnings about it, if another reading would find nothing else.
    pub(super) warnings: Option<Vec<Finding>>,
}

struct CollectedTenant {
    tenant: Arc<Tenant>,
    position: Position,
    /// Whether the generation in force has it, with its index.
    is_known: bool,
}

/// A file whose tenants stay as they are as long as nothing changes.
struct FileRecord {
    path: Box<OsStr>,
    tenants: Range<usize>,
    allowances: Vec<(TenantName, Allowance)>,
    warnings: Vec<Finding>,
    effective: Vec<Arc<EffectiveTenant>>,
    known: Option<Arc<KnownTenantFile>>,
}

impl<'c> TenantsBuilder<'c> {
    pub(super) fn new(at: &'c Place<'c>, check: Check<'c>) -> Self {
        Self {
            at,
            check,
            names: Vec::new(),
            by_name: HashMap::new(),
            found: Vec::new(),
            files: Vec::new(),
            whole: Ok(()),
            section: Ok(()),
            own_user_only: Vec::new(),
            allowances: Vec::new(),
            effective: HashMap::new(),
            explained: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn fail(&mut self, noted: Noted) {
        (self.whole, self.section) = (Err(noted), Err(noted));
    }

    /// Adds the tenants of a file, or of the section `tenants`.
    pub(super) fn add(&mut self, file: Option<&AddedFile<'_>>, read: ReadTenants) {
        let tenants = match read.tenants {
            Ok(tenants) => tenants,
            Err(noted) => return self.fail(noted),
        };
        let begin = self.found.len();
        let allowances = self.allowances.len();
        let (mut effective, mut is_lasting_file) = (Vec::new(), true);
        for tenant in tenants {
            is_lasting_file &= tenant.tenant.as_ref().is_ok_and(|(tenant, _)| is_lasting(tenant));
            effective.extend(tenant.effective.clone());
            self.add_tenant(file.map(|file| &file.name), tenant);
        }
        if read.explained.is_some() {
            self.explained = read.explained;
        }
        if let Some(file) = file
            && let Some(warnings) = &file.warnings
            && is_lasting_file
        {
            self.files.push(FileRecord {
                path: file.path.as_os_str().into(),
                tenants: begin..self.found.len(),
                allowances: self.allowances[allowances..].to_vec(),
                warnings: warnings.clone(),
                effective,
                known: None,
            });
        }
    }

    /// Adds the tenants of a file that has not changed.
    pub(super) fn add_known(&mut self, path: &Path, known: &Arc<KnownTenantFile>) {
        let name = tenant_file(path);
        let begin = self.found.len();
        let mut effective = known.effective.iter();
        for known in &known.tenants {
            let (tenant, position) = (&known.tenant, known.position());
            let shared = tenant.name.shared();
            let place =
                TenantPlace { number: self.names.len(), file: Some(Arc::clone(&name)), position };
            if !self.is_new(&shared, place) {
                continue;
            }
            self.own_user_only.push(own_user_only(tenant.credential.grant));
            self.effective.extend(effective.next().map(|of| (Arc::clone(&shared), Arc::clone(of))));
            self.names.push(shared);
            let tenant = Arc::clone(tenant);
            self.found.push(CollectedTenant { tenant, position, is_known: true });
        }
        self.allowances.extend(known.allowances.iter().cloned());
        known.warnings.iter().for_each(|warning| self.check.notes.warn(warning.clone()));
        self.files.push(FileRecord {
            path: path.as_os_str().into(),
            tenants: begin..self.found.len(),
            allowances: known.allowances.clone(),
            warnings: known.warnings.clone(),
            effective: known.effective.clone(),
            known: Some(Arc::clone(known)),
        });
    }

    /// Notes that there is a tenant of the same name; otherwise its place is kept.
    fn is_new(&mut self, name: &Arc<str>, place: TenantPlace) -> bool {
        let Some(first) = self.by_name.get(name) else {
            self.by_name.insert(Arc::clone(name), place);
            return true;
        };
        let first = first.seen_from(place.file.as_ref());
        let problem = format!("found a second tenant of this name, the first {first}");
        let finding = self.at.key(name).key_finding(problem, "each name once");
        let finding = finding.hint("remove one of the two, or rename it");
        let (file, position) = (place.file, Some(place.position));
        let noted = self.check.notes.add(Finding { file, position, ..finding });
        self.fail(noted);
        false
    }

    fn add_tenant(&mut self, file: Option<&Arc<str>>, tenant: ReadTenant) {
        let ReadTenant { name, position, own_user_only, tenant, allowance, effective } = tenant;
        let place = TenantPlace { number: self.names.len(), file: file.cloned(), position };
        if !self.is_new(&name, place) {
            return;
        }
        self.own_user_only.push(own_user_only);
        self.effective.extend(effective.map(|effective| (Arc::clone(&name), effective)));
        self.allowances.extend(TenantName::parse(&name).zip(allowance));
        self.names.push(name);
        let complete = tenant.and_then(|(tenant, complete)| {
            self.found.push(CollectedTenant { tenant, position, is_known: false });
            complete
        });
        self.whole = self.whole.and(complete);
    }

    /// Indexes the tenants.
    pub(super) fn finish(mut self, terms: u64, servers: &Servers) -> FoundTenants {
        let found = std::mem::take(&mut self.found);
        let (placed, indices) = placed(found);
        let tenants = match Tenants::new(placed.iter().map(|of| Arc::clone(&of.tenant))) {
            Ok(tenants) => Ok(tenants),
            Err(_) => {
                // In the order of the files, so that the findings are the same as at a start.
                let in_order = indices.iter().map(|index| Arc::clone(&placed[*index].tenant));
                self.without_conflicts(in_order.collect())
            }
        };
        let tenants = self.whole.and(tenants);
        let mut own_user_only = self.own_user_only;
        let mut known = KnownTenants::default();
        if tenants.is_ok() {
            let of_file = self.files.into_iter().map(|file| file.finish(&placed, &indices));
            known = KnownTenants::new(terms, servers.built().cloned().collect(), of_file);
            let mut by_index = vec![None; own_user_only.len()];
            for (index, grant) in indices.iter().zip(own_user_only) {
                by_index[*index] = grant;
            }
            own_user_only = by_index;
        }
        let embed =
            tenants.as_ref().map_or(true, |all| all.iter().any(|tenant| tenant.embed.is_some()));
        FoundTenants {
            names: self.names,
            by_name: self.by_name,
            indices,
            section: self.section,
            tenants,
            own_user_only,
            embed,
            allowances: self.allowances,
            effective: self.effective,
            explained: self.explained,
            known,
        }
    }

    /// Notes all tenants that the same request would mean.
    fn without_conflicts(&self, mut tenants: Vec<Arc<Tenant>>) -> Result<Tenants, Noted> {
        let mut conflicts = 0;
        loop {
            for (index, tenant) in tenants.iter_mut().enumerate() {
                if tenant.index != index {
                    Arc::make_mut(tenant).index = index;
                }
            }
            let conflict = match Tenants::new(tenants.iter().cloned()) {
                Ok(tenants) => return Ok(tenants),
                Err(conflict) => conflict,
            };
            let of = |name: &TenantName| self.by_name.get(name.as_str());
            let second = of(&conflict.second);
            let file = second.and_then(|second| second.file.clone());
            let first = of(&conflict.first).map(|first| first.seen_from(file.as_ref()));
            let problem = format!(
                "found a tenant that is meant by the same requests as `{}` {}: both have {}",
                conflict.first,
                first.unwrap_or_default(),
                conflict.shared
            );
            let finding = self.at.key(conflict.second.as_str()).key_finding(problem, OF_ITS_OWN);
            let position = second.map(|second| second.position);
            let noted = self.check.notes.add(Finding { file, position, ..finding });
            conflicts += 1;
            if conflicts == MAX_CONFLICTS {
                return Err(noted);
            }
            // Further tenants may be in conflict, too.
            tenants.retain(|t| t.name != conflict.second);
        }
    }
}

impl FileRecord {
    fn finish(
        self,
        placed: &[CollectedTenant],
        indices: &[usize],
    ) -> (Box<OsStr>, Arc<KnownTenantFile>) {
        let Self { path, tenants, allowances, warnings, effective, known } = self;
        let of_file = indices[tenants].iter().map(|index| &placed[*index]);
        let is_same = |known: &KnownTenantFile| {
            let mut pairs = known.tenants.iter().zip(of_file.clone());
            pairs.all(|(known, placed)| Arc::ptr_eq(&known.tenant, &placed.tenant))
        };
        let known = known.filter(|known| is_same(known)).unwrap_or_else(|| {
            let new = |of: &CollectedTenant| KnownTenant::new(Arc::clone(&of.tenant), of.position);
            let tenants = of_file.map(new).collect();
            Arc::new(KnownTenantFile { tenants, allowances, warnings, effective })
        });
        (path, known)
    }
}

/// The tenants by their indices, and the index of each in the order of the files. A known tenant
/// keeps its index, so that it stays as it is where others come and go: the others get those that
/// are free.
fn placed(found: Vec<CollectedTenant>) -> (Vec<CollectedTenant>, Vec<usize>) {
    let count = found.len();
    let mut indices: Vec<_> = vec![0; count];
    let mut positions: Vec<_> = std::iter::repeat_with(|| None).take(count).collect();
    let mut others = Vec::new();
    for (number, of) in found.into_iter().enumerate() {
        let index = of.tenant.index;
        match positions.get_mut(index) {
            Some(free) if of.is_known && free.is_none() => {
                *free = Some(of);
                indices[number] = index;
            }
            _ => others.push((number, of)),
        }
    }
    let mut others = others.into_iter();
    let placed = positions.into_iter().enumerate().filter_map(|(index, known)| {
        known.or_else(|| {
            let (number, mut of) = others.next()?;
            // A copy is made of a known tenant alone.
            Arc::make_mut(&mut of.tenant).index = index;
            indices[number] = index;
            Some(of)
        })
    });
    (placed.collect(), indices)
}

/// The grant, if it gives no tokens of other users.
fn own_user_only(grant: Grant) -> Option<file::Grant> {
    match grant {
        Grant::EmbedSecret => None,
        Grant::Password => Some(file::Grant::Password),
        Grant::ClientCredentials => Some(file::Grant::ClientCredentials),
        Grant::Token => Some(file::Grant::Token),
    }
}

const OF_ITS_OWN: &str = "a site or hosts of its own";
/// Most conflicts that are noted: each costs a look at all tenants.
const MAX_CONFLICTS: usize = 100;

impl FoundTenants {
    /// The index of the tenant that `name` refers to. That there is none is noted.
    pub(in crate::config) fn index(
        &self,
        at: &Place<'_>,
        name: &str,
        check: Check<'_>,
    ) -> Result<usize, Noted> {
        match self.by_name.get(name) {
            Some(place) if self.tenants.is_ok() => Ok(self.indices[place.number]),
            Some(place) => Ok(place.number),
            None => {
                self.section?;
                Err(check.notes.add(unknown_name(at, name, &self.names, "tenant")))
            }
        }
    }

    /// The grant of the tenant, if it gives no tokens of other users.
    pub(in crate::config) fn own_user_only(&self, index: usize) -> Option<file::Grant> {
        self.own_user_only.get(index).copied().flatten()
    }

    /// The requests that tenants take from all callers together.
    pub(in crate::config) fn allowances(&self) -> &[(TenantName, Allowance)] {
        &self.allowances
    }

    /// All tenants; none if some could not be read.
    pub(in crate::config) fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.iter().flat_map(Tenants::iter)
    }

    /// The hosts by which tenants are found.
    pub(in crate::config) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.iter().flat_map(|tenant| &tenant.hosts)
    }

    /// The hosts of the tenants on a server; `None` if no tenant is on it. Where the tenants could
    /// not be read, there may be one with any host.
    pub(in crate::config) fn hosts_on(&self, server: &str) -> Option<HashSet<String>> {
        let Ok(tenants) = &self.tenants else { return Some(HashSet::from([String::new()])) };
        let mut tenants = tenants.iter().filter(|tenant| tenant.server.name == server).peekable();
        tenants.peek()?;
        Some(tenants.flat_map(|tenant| tenant.hosts.iter().cloned()).collect())
    }

    /// The tenant of this index; none if some could not be read.
    pub(in crate::config) fn at(&self, index: usize) -> Option<&Arc<Tenant>> {
        self.tenants.as_ref().ok()?.at(index)
    }

    /// Whether all of them are whole installations.
    pub(in crate::config) fn are_installations(&self) -> bool {
        self.tenants.is_ok() && self.iter().all(|tenant| tenant.is_installation())
    }

    /// Whether pages can embed dashboards of any of them; so where that is not known.
    pub(in crate::config) fn embed(&self) -> bool {
        self.embed
    }

    pub(in crate::config) fn into_domain(self) -> Result<Tenants, Noted> {
        self.tenants
    }
}
