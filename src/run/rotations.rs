//! Looks for the journals of rotations that have begun and not ended, beside the secrets of the
//! generation in force: for the log, for a metric and for the status API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::connections::Connections;
use crate::gateway::Gateway;
use crate::plain_file::{AccessGuard, ReadThreads};
use crate::secret::SecretRef;
use crate::secret_file::{Journals, ResumeCommand};
use crate::telemetry::{LookFailed, Telemetry};
use crate::tenant::{Grant, Tenant};

/// The rotations that one look has found: the path of the journal, for each tenant and each number
/// of its secrets.
type Unfinished = BTreeMap<(String, usize), PathBuf>;

/// Looks again and again, until the gateway has ended.
pub(super) async fn follow(connections: Weak<Connections>, telemetry: Arc<Telemetry>) {
    look_when_asked(&connections, &telemetry);
    let threads = ReadThreads::default();
    let mut known = Unfinished::new();
    loop {
        let Some(generation) = connections.upgrade().map(|of| of.generation()) else { return };
        let (gateway, resume) = (Arc::clone(&generation.gateway), generation.resume.clone());
        drop(generation);
        let (begun, threads) = (Instant::now(), threads.clone());
        // A file system may hang: then the last answer stays.
        let looked = spawn_blocking(move || threads.run(move || unfinished(&gateway)));
        if let Ok(Ok(found)) = looked.await {
            // Of two secrets of a tenant, the first is ended first.
            let mut rotations: Vec<_> = found
                .keys()
                .map(|(tenant, number)| (tenant.clone(), resume.text(tenant, *number, None)))
                .collect();
            rotations.dedup_by(|second, first| second.0 == first.0);
            telemetry.unfinished_rotations.found(rotations);
            log(&known, &found, &resume);
            known = found;
        }
        sleep(MIN_PAUSE.max(begun.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// Lets hints look at the disk when they are made: the look before may be older than the rotation.
/// A file system that hangs holds no request, and few threads.
fn look_when_asked(connections: &Weak<Connections>, telemetry: &Telemetry) {
    let (connections, threads) = (Weak::clone(connections), ReadThreads::within(LOOK_TIMEOUT));
    let looks = Arc::new(Semaphore::new(MAX_LOOKS));
    telemetry.unfinished_rotations.look_by(move |name| {
        let (looks, threads) = (Arc::clone(&looks), threads.clone());
        let of = connections.upgrade().and_then(|of| {
            let generation = of.generation();
            let tenant = generation.gateway.tenants().named(name)?;
            Some((Arc::clone(tenant), generation.resume.clone()))
        });
        Box::pin(async move {
            let (tenant, resume) = of.ok_or(LookFailed)?;
            let _look = looks.try_acquire().map_err(|_| LookFailed)?;
            let look = move || unfinished_rotation(&tenant, &resume);
            match spawn_blocking(move || threads.run(look)).await {
                Ok(Ok(command)) => Ok(command),
                Ok(Err(_)) | Err(_) => Err(LookFailed),
            }
        })
    });
}

/// Logs each rotation once: those that were not known, and the end of those that were.
fn log(known: &Unfinished, found: &Unfinished, resume: &ResumeCommand) {
    let new = || found.iter().filter(|(key, path)| known.get(key) != Some(path));
    for ((tenant, number), path) in new().take(MAX_LINES) {
        let hint = format!("`{}` ends it; {WHOSE}", resume.text(tenant, *number, None));
        tracing::warn!(
            boldgate.tenant = tenant,
            path = %path.display(),
            hint,
            "a rotation of the secret of a tenant has begun and not ended: whether Bold BI takes the \
             secret in its file is unknown"
        );
    }
    let more = new().count().saturating_sub(MAX_LINES);
    if more > 0 {
        let hint = "`boldgate check` shows all of them";
        tracing::warn!(more, hint, "rotations of the secrets of more tenants have not ended");
    }
    for ((tenant, _), _) in known.iter().filter(|(key, _)| !found.contains_key(key)).take(MAX_LINES)
    {
        tracing::info!(
            boldgate.tenant = tenant,
            "the rotation of the secret of a tenant has ended"
        );
    }
}

/// The command that ends the rotation of a tenant's secret, if one has begun and not ended; for
/// logs.
pub(super) fn unfinished_rotation(tenant: &Tenant, resume: &ResumeCommand) -> Option<String> {
    let ((name, number), _) = journals_of(tenant, &mut Journals::default()).next()?;
    Some(resume.text(&name, number, None))
}

/// The same with the administrator that the journal names; for the terminal of an operator.
pub fn named_unfinished_rotation(tenant: &Tenant, resume: &ResumeCommand) -> Option<String> {
    let ((name, number), _) = journals_of(tenant, &mut Journals::default()).next()?;
    match tenant.credential.sources().nth(number)? {
        (_, SecretRef::File(secret)) => Some(resume.text_by_journal(&name, number, secret)),
        (_, SecretRef::Env(_)) => None,
    }
}

/// The journals beside the secrets of all tenants.
fn unfinished(gateway: &Gateway) -> Unfinished {
    let mut journals = Journals::default();
    let mut found = Unfinished::default();
    for tenant in gateway.tenants().iter() {
        found.extend(journals_of(tenant, &mut journals));
    }
    found
}

fn journals_of(
    tenant: &Tenant,
    journals: &mut Journals,
) -> impl Iterator<Item = ((String, usize), PathBuf)> {
    let is_rotated = tenant.credential.grant == Grant::EmbedSecret;
    let sources = tenant.credential.sources().filter(move |_| is_rotated);
    sources.enumerate().filter_map(move |(number, (_, source))| match source {
        SecretRef::File(path)
            if AccessGuard::unless_hanging(path).is_ok_and(|_| journals.is_unfinished(path)) =>
        {
            Some(((tenant.name.to_string(), number), crate::secret_file::journal_of(path)))
        }
        SecretRef::File(_) | SecretRef::Env(_) => None,
    })
}

/// A rotation takes seconds, so that a look within one tells nothing yet.
const MIN_PAUSE: Duration = Duration::from_secs(10);
/// Bounds the time of looking to a hundredth, also where there are very many files.
const PAUSE_FACTOR: u32 = 100;
/// Bounds the time that the line with a hint is late.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds the threads that look for hints; beyond it they are made of the last look.
const MAX_LOOKS: usize = 16;
const WHOSE: &str = "USER is the administrator who began, whom `boldgate check` names";
/// Bounds the lines of one look; all tenants may have their secrets on one volume.
const MAX_LINES: usize = 20;
