//! `boldgate rotate`: a new embed secret for a site, by a token of its administrator. The journal
//! beside the secret's file tells of a rotation that has not ended.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use tokio::time::Instant;

use super::named_tenant::{DISABLED, no_such_tenant, permit_with};
use super::{ConfigFile, Failure, print, runtime};
use crate::boldbi::rotation::{self, NoNewSecret};
use crate::boldbi::{BoldBi, hint};
use crate::policy::Permit;
use crate::secret::{Secret, SecretRef};
use crate::secret_file::{Journal, JournalError, Replacement, ResumeCommand};
use crate::tenant::{Grant, SecretPosition, Tenant};
use crate::token::{AccessToken, ExchangeError, ExchangeErrorKind};
use audit::RotationAudit;
use ended::{EndedRotation, RotationFailure};
use gateway::RunningGateway;
use step::RotationStep;

mod audit;
mod ended;
mod gateway;
mod holding;
mod resume;
mod secrets;
mod step;
mod stopped;

/// Rotate the embed secret of a tenant: generate it in Bold BI, write its file, and prove it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RotateCommand {
    /// The tenant, by its name in the configuration
    tenant: String,
    /// The administrator of the site as whom Bold BI is asked; an e-mail address as a rule
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    admin_subject: String,
    /// End a rotation that has begun and not ended
    #[arg(long)]
    resume: bool,
    /// Resume also a rotation that another administrator began
    #[arg(long, requires = "resume")]
    take_over: bool,
    /// Which of two `embed_secrets` is the site's own, 1 or 2
    #[arg(long, value_name = "NUMBER", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=2))]
    position: u8,
    /// The file of the token that the admin listener asks for, if it is not the configured one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Kill the process at the end of this step; in builds for tests alone
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "STEP", hide = true)]
    kill_after: Option<RotationStep>,
    /// Seconds after which Bold BI is taken to have carried out a request or never to do so; in
    /// builds for tests alone
    #[cfg(debug_assertions)]
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = SETTLED.as_secs())]
    settled_after: u64,
}

/// One rotation.
struct Rotation<'r> {
    command: &'r RotateCommand,
    tenant: &'r Tenant,
    file: &'r Path,
    bold_bi: BoldBi,
    gateway: RunningGateway,
    /// Whether the file has the new secret.
    is_renamed: AtomicBool,
}

impl RotateCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let settings = self.config.load_for(&self.tenant)?;
        let tenant = settings.tenants.iter().find(|tenant| tenant.name.as_str() == self.tenant);
        let grant = tenant.map(|tenant| tenant.credential.grant);
        let audit = RotationAudit { command: &self, settings: &settings, grant };
        let tenant = tenant.ok_or_else(|| {
            audit.refused(Failure::Usage(no_such_tenant(&self.tenant, &settings)))
        })?;
        let file = self.file_of(tenant).map_err(|failure| audit.refused(failure))?;
        let bold_bi = BoldBi::new(settings.servers.iter()).map_err(Failure::other)?;
        let (gateway, is_renamed) = (RunningGateway::of(&self), AtomicBool::new(false));
        let rotation = Rotation { command: &self, tenant, file, bold_bi, gateway, is_renamed };
        let begun = Instant::now();
        let (resumed, message) = if self.resume {
            let (journal, message) =
                rotation.unfinished().map_err(|failure| audit.refused(failure))?;
            (Some(journal), message)
        } else {
            rotation.unhindered().map_err(|failure| audit.refused(failure))?;
            (None, "a rotation begins".to_owned())
        };
        audit.line("begun", &message, None)?;
        let result = runtime()?.block_on(rotation.unless_stopped(resumed));
        let (outcome, message) = match &result {
            Ok(ended) => (ended.outcome, ended.message.clone()),
            Err(RotationFailure { outcome, what, .. }) => (*outcome, what.clone()),
        };
        audit.line(outcome, &message, Some(begun.elapsed()))?;
        match result {
            Ok(ended) => print(&ended.message),
            Err(RotationFailure { what, hint, .. }) => Err(Failure::Other { what, hint }),
        }
    }

    /// The command that ends an unfinished rotation.
    fn resume_command(&self) -> String {
        let number = usize::from(self.position) - 1;
        self.resume().text(&self.tenant, number, Some(&self.admin_subject))
    }

    /// The command that ends the unfinished rotation of the secret in this file, which another
    /// administrator may have begun.
    fn resume_command_by_journal(&self, file: &Path) -> String {
        self.resume().text_by_journal(&self.tenant, usize::from(self.position) - 1, file)
    }

    fn resume(&self) -> ResumeCommand {
        ResumeCommand::new(&self.config.path).with_token_file(self.token_file.as_deref())
    }

    /// The time after which Bold BI is taken to have carried out a request or never to do so. It
    /// may take half of that to respond.
    #[cfg_attr(not(debug_assertions), expect(clippy::unused_self, reason = "tests alone need it"))]
    fn settled_after(&self, tenant: &Tenant) -> Duration {
        #[cfg(debug_assertions)]
        let least = Duration::from_secs(self.settled_after);
        #[cfg(not(debug_assertions))]
        let least = SETTLED;
        least.max(tenant.server.timeouts.exchange * 2)
    }

    /// The file of the secret to rotate.
    fn file_of<'t>(&self, tenant: &'t Tenant) -> Result<&'t Path, Failure> {
        let name = &tenant.name;
        if tenant.disabled {
            let what = format!("tenant `{name}`: {DISABLED}");
            let hint = format!("remove `tenants.{name}.disabled` from the configuration first");
            return Err(Failure::Other { what, hint: Some(hint) });
        }
        if tenant.credential.grant != Grant::EmbedSecret {
            let grant = tenant.credential.grant.as_str();
            let what = format!("tenant `{name}` has no embed secret: its grant is `{grant}`");
            return Err(Failure::Other { what, hint: Some(BY_PAGE.to_owned()) });
        }
        match tenant.credential.sources().nth(usize::from(self.position) - 1) {
            Some((_, SecretRef::File(path))) => Ok(path),
            Some((_, SecretRef::Env(_))) => Err(Failure::Other {
                what: format!("the secret of tenant `{name}` is in a variable, not in a file"),
                hint: Some(IN_A_FILE.to_owned()),
            }),
            None => Err(Failure::Usage(format!(
                "tenant `{name}` has one embed secret alone: `--position` is for `embed_secrets`"
            ))),
        }
    }
}

impl Rotation<'_> {
    /// Another rotation of the tenant counts first: its file must stay, and its secret must not be
    /// ended before it is proven.
    fn unhindered(&self) -> Result<(), Failure> {
        let own = (self.file, self.position());
        let other = self.other_file().map(|file| (file, self.position().other()));
        for (file, position) in [own].into_iter().chain(other) {
            let under_way = || JournalError::UnderWay(crate::secret_file::journal_of(file));
            let rotating = crate::secret_file::is_under_way(file).then(under_way);
            let Some(error) = rotating.or_else(|| Journal::obstacle(file)) else { continue };
            let number = usize::from(position.number()) - 1;
            let resume = self.command.resume().text_by_journal(&self.command.tenant, number, file);
            let RotationFailure { what, hint, .. } = RotationFailure::of_journal(&error, &resume);
            return Err(Failure::Other { what, hint });
        }
        Ok(())
    }

    async fn rotate(&self) -> Result<EndedRotation, RotationFailure> {
        let name = &self.tenant.name;
        Replacement::check(self.file)?;
        // It is locked: from here on no other process touches the files.
        let journal = Journal::begin(self.file, name.as_str(), &self.command.admin_subject);
        let mut journal = journal
            .map_err(|error| RotationFailure::of_journal(&error, &self.command.resume_command()))?;
        self.reached(RotationStep::Begun);
        // The second rotation would end the secret of the first before that one has proven it.
        if let Some(other) = self.other_file()
            && crate::secret_file::is_under_way(other)
        {
            let path = crate::secret_file::journal_of(other);
            let what = JournalError::UnderWay(path).to_string();
            return Err(self.cancelled(journal, what, None));
        }
        let mut replacement = match Replacement::prepare(self.file) {
            Ok(replacement) => replacement,
            Err(unfit) => {
                let hint = unfit.hint().to_owned();
                return Err(self.cancelled(journal, unfit.to_string(), Some(hint)));
            }
        };
        self.reached(RotationStep::Prepared);
        let admin = permit_with(self.tenant, None, &self.command.admin_subject);
        let exchanged = self.bold_bi.exchange_in_turn(&admin).await;
        let token = match exchanged.result {
            Ok(exchanged) => exchanged.token,
            Err(error) => {
                let subject = self.command.admin_subject.escape_debug();
                let what = format!("the administrator `{subject}` gets no token: {error}");
                let hint = match &error.kind {
                    ExchangeErrorKind::Refused { status: 404, .. }
                    | ExchangeErrorKind::SubjectUnknown { .. } => UNKNOWN_ADMINISTRATOR,
                    _ => hint(&error),
                };
                return Err(self.cancelled(journal, what, Some(hint.to_owned())));
            }
        };
        let before = match self.secrets_before(&token, exchanged.position).await {
            Ok(before) => before,
            Err((what, hint)) => return Err(self.cancelled(journal, what, Some(hint))),
        };
        if let Err((what, hint)) = self.held().await {
            return Err(self.cancelled(journal, what, Some(hint)));
        }
        if let Err(error) = self.note(&mut journal, before.as_ref(), &token) {
            self.gateway.release(self.command).await;
            let what = format!("the journal cannot be written: {error}");
            return Err(self.cancelled(journal, what, None));
        }
        self.reached(RotationStep::Asked);
        let deadline = self.command.settled_after(self.tenant) / 2;
        let secret = match rotation::generate(self.tenant, &token, deadline).await {
            Ok(secret) => secret,
            Err(error @ NoNewSecret::Refused(..)) => {
                let what = format!("no embed secret was generated: {error}");
                self.gateway.release(self.command).await;
                return Err(self.cancelled(journal, what, Some(error.hint().to_owned())));
            }
            Err(error @ NoNewSecret::Unknown(_)) => match self.read_back_once(&token, before).await
            {
                Ok(secret) => secret,
                // The hold stays on: Bold BI may have a new secret, which ends the former one.
                Err(why) => {
                    let what = format!("no embed secret came: {error}; {why}");
                    return Err(self.unknown(what, &journal));
                }
            },
        };
        self.reached(RotationStep::Generated);
        let written = replacement.write(&secret).and_then(|()| {
            self.reached(RotationStep::Written);
            replacement.rename()
        });
        if let Err(error) = written {
            let what = format!("`{}` cannot be written: {error}", self.file.display());
            return Err(self.unknown(what, &journal));
        }
        self.is_renamed.store(true, Ordering::Relaxed);
        self.reached(RotationStep::Renamed);
        // The gateway holds exchanges until the new secret is in force there.
        let permit = self.own_permit(&secret);
        let (proof, ()) = tokio::join!(self.exchanged(&permit), self.taken());
        if let Err(error) = proof {
            let what = format!(
                "the new secret is in its file, and Bold BI gives no token for it: {error}"
            );
            return Err(self.unknown(what, &journal));
        }
        self.reached(RotationStep::Proven);
        journal.end().map_err(|error| RotationFailure {
            outcome: "success",
            what: format!("the secret was rotated, and the journal cannot be removed: {error}"),
            hint: Some(format!("`{}` removes it", self.command.resume_command())),
        })?;
        Ok(EndedRotation::rotated(format!(
            "the embed secret of tenant `{name}` was rotated: `{}` has the new one, and Bold BI takes it. \
             Tokens that were given before live on until their end",
            self.file.display()
        )))
    }

    async fn exchanged(&self, permit: &Permit) -> Result<AccessToken, ExchangeError> {
        let exchanged = self.bold_bi.exchange_in_turn(permit).await.result;
        exchanged.map(|exchanged| exchanged.token)
    }

    fn own_permit(&self, secret: &Secret) -> Permit {
        permit_with(self.tenant, Some(secret), &self.tenant.credential.username)
    }

    fn position(&self) -> SecretPosition {
        match self.command.position {
            2 => SecretPosition::Second,
            _ => SecretPosition::First,
        }
    }

    /// The failure of a rotation that has asked for nothing, without its journal.
    fn cancelled(&self, journal: Journal, what: String, hint: Option<String>) -> RotationFailure {
        let path = journal.path().to_owned();
        match journal.end() {
            Ok(()) => RotationFailure::unchanged(what, hint),
            Err(error) => RotationFailure::unknown(
                format!("{what}; and the journal cannot be removed: {error}"),
                &path,
                &self.command.resume_command(),
            ),
        }
    }

    /// The failure of a rotation whose end is unknown.
    fn unknown(&self, what: impl std::fmt::Display, journal: &Journal) -> RotationFailure {
        RotationFailure::unknown(what, journal.path(), &self.command.resume_command())
    }

    fn is_renamed(&self) -> bool {
        self.is_renamed.load(Ordering::Relaxed)
    }

    /// The file of the tenant's other secret, if it has one.
    fn other_file(&self) -> Option<&Path> {
        match self.tenant.credential.source_in(self.position().other()) {
            Some(SecretRef::File(path)) => Some(path),
            _ => None,
        }
    }

    /// The end of a step, at which a test may kill the process.
    #[cfg_attr(not(debug_assertions), expect(clippy::unused_self, reason = "tests alone need it"))]
    fn reached(&self, step: RotationStep) {
        #[cfg(debug_assertions)]
        if self.command.kill_after == Some(step) {
            step.kill();
        }
        #[cfg(not(debug_assertions))]
        let _ = step;
    }
}

/// Longer than a web server takes for a request of this kind.
const SETTLED: Duration = Duration::from_secs(60);
const IN_A_FILE: &str =
    "keep the embed secret in a file of its own, `embed_secret: { file: /path }`";
const BY_PAGE: &str = "change the credential in Bold BI, then write the new one to its file: a running gateway takes it \
                       from there";
const UNKNOWN_ADMINISTRATOR: &str = "`--admin-subject` must be the name of an administrator as this site of Bold BI has it; `boldgate doctor` \
                                     with the tenant's name tells whether the site is right";
const BY_HAND: &str = "look at Settings > Embed in Bold BI: copy the secret from there, or, if it is not shown, generate \
                       it again there; write it to the file, and run this again; tokens that were given serve on until their end";
const AFTER_HELP: &str = "\
Bold BI ends the former secret at once. The new one takes the place of the file before anything else is \
done. A running gateway is told by its admin API to hold exchanges meanwhile; it reads the file by itself. \
If the process is killed or the reply of Bold BI is lost, `serve`, `check`, `doctor` and `rotate` name the \
unknown state, and `--resume` ends it. A rotation ends no token that was given before.";
