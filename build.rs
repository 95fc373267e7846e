//! Gives the program the commit and the date that it was built from, in `BOLDGATE_COMMIT` and
//! `BOLDGATE_DATE`. A build without git takes them, or `SOURCE_DATE_EPOCH`, from its environment.
//! The date is that of the commit, so that builds are reproducible.

use std::path::Path;
use std::process::Command;

fn main() {
    for name in ["BOLDGATE_COMMIT", "BOLDGATE_DATE", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    // Only another commit runs this script again. A reference moves without a change of HEAD.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = |name| variable(name).filter(|value| !value.is_empty());
    let commit = given("BOLDGATE_COMMIT").map(|commit| commit.chars().take(SHORT).collect());
    let commit = commit.or_else(|| git(&["rev-parse", "--short=7", "HEAD"]));
    let date = given("BOLDGATE_DATE")
        .or_else(|| given("SOURCE_DATE_EPOCH").and_then(|seconds| date_of(&seconds)))
        .or_else(|| git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d"]));
    let (commit, date): (String, String) = (commit.unwrap_or_default(), date.unwrap_or_default());
    let version = variable("CARGO_PKG_VERSION").unwrap_or_default();
    let known = [commit.as_str(), &date].into_iter().filter(|part| !part.is_empty());
    let build = match known.collect::<Vec<_>>().join(" ") {
        none if none.is_empty() => version,
        known => format!("{version} ({known})"),
    };
    println!("cargo::rustc-env=BOLDGATE_COMMIT={commit}");
    println!("cargo::rustc-env=BOLDGATE_DATE={date}");
    println!("cargo::rustc-env=BOLDGATE_BUILD={build}");
}

/// The output of git in this repository; `None` without git, and in a folder that is no repository
/// of its own, such as an unpacked archive within another one.
fn git(arguments: &[&str]) -> Option<String> {
    if Path::new(".git").exists() { output("git", arguments) } else { None }
}

/// The day of a Unix time.
fn date_of(seconds: &str) -> Option<String> {
    output("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d"])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("TZ", "UTC").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// How much of a commit's name is shown.
const SHORT: usize = 7;

/// A variable of the build.
#[expect(clippy::disallowed_methods, reason = "a build has no secrets and no options of clap")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
