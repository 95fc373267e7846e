//! `boldgate rotate`: a new embed secret for a site, by a token of its administrator. The journal
//! beside the secret's file tells of a rotation that has not ended.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::named_tenant::{DISABLED, disabled_to_do, no_such_tenant, permit_with};
use super::{ConfigFile, Failure, print, runtime, warn};
use crate::boldbi::rotation::{self, NoNewSecret};
use crate::boldbi::{BoldBi, hint};
use crate::policy::Permit;
use crate::secret::{Secret, SecretRef};
use crate::secret_file::{
    Journal, JournalError, Replacement, UNWRITABLE, UnfitFile, finish_unfinished, unfinished_secret,
};
use crate::tenant::{Grant, SecretPosition, Tenant};
use crate::token::{AccessToken, ExchangeError};
use audit::RotationAudit;
use gateway::RunningGateway;
use step::RotationStep;

mod audit;
mod gateway;
mod step;

/// Rotate the embed secret of a tenant: generate it in Bold BI, write its file, and prove it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RotateCommand {
    /// The tenant, by its name in the configuration
    tenant: String,
    /// The administrator of the site as whom Bold BI is asked; an e-mail address as a rule
    #[arg(long, value_name = "USER")]
    admin_subject: String,
    /// End a rotation that has begun and not ended
    #[arg(long)]
    resume: bool,
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
}

/// One rotation.
struct Rotation<'r> {
    command: &'r RotateCommand,
    tenant: &'r Tenant,
    file: &'r Path,
    bold_bi: BoldBi,
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
        let rotation = Rotation { command: &self, tenant, file, bold_bi };
        let begun = Instant::now();
        audit.line("begun", "a rotation begins", None)?;
        let result = runtime()?.block_on(async {
            if self.resume { rotation.resume().await } else { rotation.rotate().await }
        });
        let (outcome, message) = match &result {
            Ok(message) => ("success", message.clone()),
            Err(RotationFailure { outcome, what, .. }) => (*outcome, what.clone()),
        };
        audit.line(outcome, &message, Some(begun.elapsed()))?;
        match result {
            Ok(message) => print(&message),
            Err(RotationFailure { what, hint, .. }) => Err(Failure::Other { what, hint }),
        }
    }

    /// The file of the secret to rotate.
    fn file_of<'t>(&self, tenant: &'t Tenant) -> Result<&'t Path, Failure> {
        let name = &tenant.name;
        if tenant.disabled {
            let what = format!("tenant `{name}`: {DISABLED}");
            return Err(Failure::Other { what, hint: Some(disabled_to_do(tenant)) });
        }
        if tenant.credential.grant != Grant::EmbedSecret {
            let what = format!("tenant `{name}` has no embed secret: its grant is another");
            return Err(Failure::other(what));
        }
        match tenant.credential.sources.get(usize::from(self.position) - 1) {
            Some(SecretRef::File(path)) => Ok(path),
            Some(SecretRef::Env(_)) => Err(Failure::Other {
                what: format!("the secret of tenant `{name}` is in a variable, not in a file"),
                hint: Some(IN_A_FILE.to_owned()),
            }),
            None => Err(Failure::Usage(format!("tenant `{name}` has one embed secret alone"))),
        }
    }
}

/// Why a rotation has not ended well.
struct RotationFailure {
    /// The word in the audit log.
    outcome: &'static str,
    what: String,
    hint: Option<String>,
}

impl RotationFailure {
    /// Nothing has changed.
    fn unchanged(what: impl std::fmt::Display, hint: Option<String>) -> Self {
        Self { outcome: "unchanged", what: format!("{what}; nothing has changed"), hint }
    }

    /// Whether Bold BI takes the secret in the file is not known.
    fn unknown(what: impl std::fmt::Display, journal: &Path) -> Self {
        // Its folder may have been removed or unmounted meanwhile.
        if !journal.exists() {
            let what = format!(
                "{what}; whether Bold BI takes the secret in the file is unknown, and the journal has gone \
                 from `{}`",
                journal.display()
            );
            return Self { outcome: "unknown", what, hint: Some(GONE.to_owned()) };
        }
        let what = format!(
            "{what}; whether Bold BI takes the secret in the file is unknown, as the journal `{}` says",
            journal.display()
        );
        Self { outcome: "unknown", what, hint: Some(RESUME.to_owned()) }
    }
}

impl From<UnfitFile> for RotationFailure {
    fn from(unfit: UnfitFile) -> Self {
        Self::unchanged(&unfit, Some(unfit.hint().to_owned()))
    }
}

impl From<JournalError> for RotationFailure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unfinished(ref path) => Self::unknown(&error, path),
            JournalError::Unusable(..) => Self::unchanged(error, Some(UNWRITABLE.to_owned())),
            JournalError::UnderWay(_) | JournalError::Nothing(_) => Self::unchanged(error, None),
        }
    }
}

impl Rotation<'_> {
    async fn rotate(&self) -> Result<String, RotationFailure> {
        let name = &self.tenant.name;
        // The journal of an earlier rotation counts first: the file of that one must stay.
        if crate::secret_file::is_unfinished(self.file) {
            let path = crate::secret_file::journal_of(self.file);
            return Err(JournalError::Unfinished(path).into());
        }
        Replacement::check(self.file)?;
        // It is locked: from here on no other process touches the files.
        let mut journal = Journal::begin(self.file, name.as_str())?;
        self.reached(RotationStep::Begun);
        let mut replacement = match Replacement::prepare(self.file) {
            Ok(replacement) => replacement,
            Err(unfit) => {
                let hint = unfit.hint().to_owned();
                return Err(self.cancelled(journal, unfit.to_string(), Some(hint)));
            }
        };
        self.reached(RotationStep::Prepared);
        let admin = permit_with(self.tenant, None, &self.command.admin_subject);
        let token = match self.exchanged(&admin).await {
            Ok(token) => token,
            Err(error) => {
                let what = format!("the administrator gets no token: {error}");
                let hint = hint(&error).to_owned();
                return Err(self.cancelled(journal, what, Some(hint)));
            }
        };
        let gateway = RunningGateway::of(self.command);
        self.tell(gateway.hold(&self.command.tenant, &self.command.admin_subject, HOLD).await)?;
        if let Err(error) = journal.asked(&String::from_utf8_lossy(token.as_bytes())) {
            return Err(self.cancelled(
                journal,
                format!("the journal cannot be written: {error}"),
                None,
            ));
        }
        self.reached(RotationStep::Asked);
        let secret = match rotation::generate(self.tenant, &token).await {
            Ok(secret) => secret,
            Err(error @ NoNewSecret::Refused(_)) => {
                let what = format!("no embed secret was generated: {error}");
                let failure = self.cancelled(journal, what, Some(ADMINISTRATOR.to_owned()));
                self.released(&gateway).await?;
                return Err(failure);
            }
            Err(error @ NoNewSecret::Unknown(_)) => {
                self.released(&gateway).await?;
                let what = format!("no embed secret came: {error}");
                return Err(RotationFailure::unknown(what, journal.path()));
            }
        };
        self.reached(RotationStep::Generated);
        let lost = |error: std::io::Error, journal: &Journal| {
            let what = format!("`{}` cannot be written: {error}", self.file.display());
            RotationFailure::unknown(what, journal.path())
        };
        replacement.write(&secret).map_err(|error| lost(error, &journal))?;
        self.reached(RotationStep::Written);
        replacement.rename().map_err(|error| lost(error, &journal))?;
        self.reached(RotationStep::Renamed);
        let proof = self.exchanged(&self.own_permit(&secret)).await;
        if let Err(error) = proof {
            self.released(&gateway).await?;
            let what = format!(
                "the new secret is in its file, and Bold BI gives no token for it: {error}"
            );
            return Err(RotationFailure::unknown(what, journal.path()));
        }
        self.reached(RotationStep::Proven);
        let ended = journal.end();
        self.released(&gateway).await?;
        ended.map_err(|error| RotationFailure {
            outcome: "success",
            what: format!("the secret was rotated, and the journal cannot be removed: {error}"),
            hint: Some(RESUME.to_owned()),
        })?;
        Ok(format!(
            "the embed secret of tenant `{name}` was rotated: `{}` has the new one, and Bold BI takes it. \
             Tokens that were given before live on until their end",
            self.file.display()
        ))
    }

    /// Ends a rotation by the first secret that Bold BI takes: that in the file, the one that was
    /// written beside it, or the one that Bold BI lets be read back.
    async fn resume(&self) -> Result<String, RotationFailure> {
        let mut journal = Journal::resume(self.file)?;
        let name = &self.tenant.name;
        let end = |journal: Journal, how: &str| match journal.end() {
            Ok(()) => Ok(format!("the rotation of tenant `{name}` has ended: {how}")),
            Err(error) => Err(RotationFailure::unchanged(
                format!("{how}, and the journal cannot be removed: {error}"),
                None,
            )),
        };
        let unknown =
            |what: String, journal: &Journal| RotationFailure::unknown(what, journal.path());
        let position = self.position();
        let known = self.tenant.credential.secret_in(position).cloned();
        if let Some(secret) = known
            && self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))?
        {
            return end(journal, "Bold BI takes the secret in the file");
        }
        if let Some(secret) = unfinished_secret(self.file)
            && self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))?
        {
            let renamed = finish_unfinished(self.file);
            renamed.map_err(|error| unknown(format!("it cannot be renamed: {error}"), &journal))?;
            return end(journal, "the new secret had been written, and is in its file now");
        }
        let secret = self.read_back(&mut journal).await.map_err(|error| {
            let mut failure = unknown(format!("the secret cannot be read back: {error}"), &journal);
            failure.hint = Some(BY_HAND.to_owned());
            failure
        })?;
        if !self.is_taken(&secret).await.map_err(|error| unknown(error, &journal))? {
            let mut failure =
                unknown("Bold BI refuses the secret that it lets be read".to_owned(), &journal);
            failure.hint = Some(BY_HAND.to_owned());
            return Err(failure);
        }
        let mut replacement = Replacement::prepare(self.file)?;
        let written = replacement.write(&secret).and_then(|()| replacement.rename());
        written
            .map_err(|error| unknown(format!("the file cannot be written: {error}"), &journal))?;
        end(journal, "the new secret was read back from Bold BI, and is in its file now")
    }

    /// The secret as Bold BI shows it, by the token of the journal, or by another secret of the
    /// tenant.
    async fn read_back(&self, journal: &mut Journal) -> Result<Secret, String> {
        let lifetime = std::time::Duration::from_secs(60);
        let kept = journal
            .token()
            .and_then(|token| AccessToken::new(&token, Instant::now(), lifetime).ok());
        let refusal = match kept {
            Some(token) => match rotation::read_back(self.tenant, &token).await {
                Ok(secret) => return Ok(secret),
                Err(error) => error.to_string(),
            },
            None => "the journal has no token".to_owned(),
        };
        let admin = permit_with(self.tenant, None, &self.command.admin_subject);
        let Ok(token) = self.exchanged(&admin).await else { return Err(refusal) };
        rotation::read_back(self.tenant, &token).await.map_err(|error| error.to_string())
    }

    /// Whether Bold BI gives a token for `secret`. An error if that cannot be told.
    async fn is_taken(&self, secret: &Secret) -> Result<bool, String> {
        match self.exchanged(&self.own_permit(secret)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind.may_judge_secret() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
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
            ),
        }
    }

    /// Notes on stderr that no running gateway was told. The rotation goes on: cached tokens serve.
    fn tell(&self, told: Result<(), String>) -> Result<(), RotationFailure> {
        let Err(why) = told else { return Ok(()) };
        let note = format!(
            "note: no running gateway was told to hold exchanges of `{}`: {why}. `hold: 30s` in the \
             tenant's `credential` does the same by itself",
            self.tenant.name
        );
        warn(&note).map_err(|_| RotationFailure::unchanged("stderr cannot be written", None))
    }

    /// Lets a running gateway go on.
    async fn released(&self, gateway: &RunningGateway) -> Result<(), RotationFailure> {
        // It ends by itself, so that a gateway that has gone does not matter.
        drop(gateway.hold(&self.command.tenant, &self.command.admin_subject, 0).await);
        Ok(())
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

/// Longer than the exchanges and the request of a rotation take as a rule.
const HOLD: u64 = 60;
const IN_A_FILE: &str =
    "keep the embed secret in a file of its own, `embed_secret: { file: /path }`";
const RESUME: &str = "run the same command with `--resume`: it tries the secret in the file, and reads the new one \
                      back if Bold BI lets it";
const BY_HAND: &str = "look at Settings > Embed in Bold BI: copy the secret from there, or generate it again, write \
                       it to the file, and run this again; tokens that were given serve on until their end";
const GONE: &str = "look at Settings > Embed in Bold BI: copy the secret from there, or generate it again, and write it \
                    to the file once its folder is back; tokens that were given serve on until their end";
const ADMINISTRATOR: &str = "the user of `--admin-subject` must be an administrator of the site";
const AFTER_HELP: &str = "\
Bold BI ends the former secret at once. The new one takes the place of the file before anything else is \
done. A running gateway is told by its admin API to hold exchanges meanwhile; it reads the file by itself. \
If the process is killed or the reply of Bold BI is lost, `serve`, `check`, `doctor` and `rotate` name the \
unknown state, and `--resume` ends it. A rotation ends no token that was given before.";
