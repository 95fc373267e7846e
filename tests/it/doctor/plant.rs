//! A set-up with a planted fault, and the diagnosis of it.

use std::any::Any;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use boldgate::boldbi::UserSource;
use boldgate::boldbi::stand_in::StandIn;
use rustix::process::{getegid, geteuid};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::edit::Edit;
use crate::support::files::write;
use crate::support::process::{Ended, Process};
use crate::support::stand_in::{EMBED_SECRET, PASSWORD, site, stand_in};

pub const USER: &str = "reports@acme.example";

/// The configuration of one tenant on one server, its files, and whatever must stay alive.
pub struct Plant {
    pub config: String,
    pub arguments: Vec<String>,
    /// Runs the program in its place, with its name and arguments as `"$@"`.
    pub shell: Option<String>,
    pub folder: tempfile::TempDir,
    /// Texts that differ from run to run, and those in their place.
    pub varying: Vec<(String, String)>,
    alive: Vec<Box<dyn Any + Send>>,
}

impl Plant {
    /// A tenant of the server with this `url` and these other keys, without a fault.
    pub fn new(url: &str, server: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let secret = write(&folder, "secret", EMBED_SECRET);
        let config = format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n\
             limits: {{ max_connections: 100 }}\n\
             servers:\n  main: {{ url: \"{url}\", max_connections: 10{server} }}\n\
             tenants:\n  acme:\n    server: main\n    site: site1\n    credential:\n      \
             grant: embed_secret\n      username: {USER}\n      \
             embed_secret: {{ file: \"{secret}\" }}\n      user_source: local\n"
        );
        let user = format!("user {} and group {}", geteuid().as_raw(), getegid().as_raw());
        let varying = vec![
            (folder.path().display().to_string(), "[folder]".to_owned()),
            (user, "[user]".to_owned()),
        ];
        Self { config, arguments: Vec::new(), shell: None, folder, varying, alive: Vec::new() }
    }

    /// The same with this text of the configuration in the place of another.
    pub fn edit(self, from: &str, to: &str) -> Self {
        Self { config: self.config.edit(from, to), ..self }
    }

    /// The same with this content of its secret's file.
    pub fn secret(self, content: &str) -> Self {
        self.file("secret", content)
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        write(&self.folder, name, content);
        self
    }

    /// The same with the grant `password`, and this content of its file.
    pub fn password(self, content: &str) -> Self {
        self.edit("grant: embed_secret", "grant: password")
            .edit("embed_secret: {", "password: {")
            .secret(content)
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub fn shell(self, script: &str) -> Self {
        Self { shell: Some(script.to_owned()), ..self }
    }

    /// The same, during which `alive` is not dropped.
    pub fn with(mut self, alive: impl Any + Send) -> Self {
        self.alive.push(Box::new(alive));
        self
    }

    /// The same, with `text` shown as `shown` in the snapshot.
    pub fn shows(mut self, text: impl std::fmt::Display, shown: &str) -> Self {
        self.varying.push((text.to_string(), shown.to_owned()));
        self
    }

    /// The same, with the minutes from now on shown as the time of the run.
    pub fn at_this_time(self) -> Self {
        let now = OffsetDateTime::now_utc();
        // The table takes a while.
        (0..5).fold(self, |plant, later| {
            plant.shows(minute(now + time::Duration::minutes(later)), "[now]")
        })
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs the doctor with these arguments besides its own.
    pub async fn diagnose(&self, more: &[&str]) -> Ended {
        let config = write(&self.folder, "gateway.yaml", &self.config);
        let program = env!("CARGO_BIN_EXE_boldgate");
        let mut command = match &self.shell {
            Some(script) => {
                let mut shell = Command::new("bash");
                shell.args(["-c", script, "bash", program]);
                shell
            }
            None => Command::new(program),
        };
        command.args(["doctor", "--config", &config]).args(&self.arguments).args(more);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        tokio::task::spawn_blocking(move || Process::start(command).end()).await.unwrap()
    }

    /// The text with fixed words in the place of those that vary.
    pub fn steady(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (varying, shown) in &self.varying {
            text = text.edit_any(varying, shown);
        }
        text
    }
}

/// A date as the doctor writes it.
pub fn minute(date: OffsetDateTime) -> String {
    let form = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    date.format(form).unwrap()
}

/// The first step that failed, or else the first with a warning.
pub struct FirstFault {
    pub subject: &'static str,
    pub step: String,
    pub found: String,
    pub to_do: String,
}

impl FirstFault {
    /// Reads the document that `--json` prints.
    pub fn of(document: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(document).expect(document);
        let steps_of = |kind: &str| {
            let examined = document[kind].as_array().unwrap().iter();
            examined.flat_map(|one| one["steps"].as_array().unwrap().clone()).collect::<Vec<_>>()
        };
        let machine = document["machine"].as_array().unwrap().clone();
        let all = [
            ("machine", machine),
            ("server", steps_of("servers")),
            ("tenant", steps_of("tenants")),
        ];
        let find = |status: &str| {
            all.iter().find_map(|(subject, steps)| {
                let first = steps.iter().find(|step| step["status"] == status)?;
                let step = first["step"].as_str().unwrap().to_owned();
                // A file has several faults at once.
                let same: Vec<_> = steps
                    .iter()
                    .filter(|other| other["step"] == first["step"] && other["status"] == status)
                    .collect();
                let text = |name: &str| {
                    let texts: Vec<_> =
                        same.iter().map(|one| one[name].as_str().unwrap()).collect();
                    texts.join("\n    ")
                };
                Some(Self { subject, step, found: text("found"), to_do: text("to_do") })
            })
        };
        find("failed").or_else(|| find("warning"))
    }
}

/// A stand-in with one site and one user, and a set-up for it without a fault.
pub async fn sound() -> (StandIn, Plant) {
    sound_for(UserSource::Local).await
}

pub async fn sound_for(source: UserSource) -> (StandIn, Plant) {
    let stand_in = stand_in(vec![site(Some("site1"), &[(USER, source)])]).await;
    let plant = Plant::new(&stand_in.url(), "").shows(stand_in.addr(), "[server]");
    (stand_in, plant)
}

/// A set-up for a sound stand-in whose user has a password.
pub async fn with_password(source: UserSource, content: &str) -> Plant {
    let (stand_in, plant) = sound_for(source).await;
    assert!(!PASSWORD.is_empty());
    plant.password(content).with(stand_in)
}
