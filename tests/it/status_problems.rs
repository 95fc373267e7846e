//! The problems of the status API say what fails, and warn of what serves on.

use std::path::Path;
use std::process::Command;

use boldgate::boldbi::stand_in::StandIn;

use crate::support::admin::problems;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{ACME, PATIENCE, get, log_line, two_sites};
use crate::support::waiting::becomes;

const OFF: &str = "admin: { address: \"127.0.0.1:0\" }";
const ON: &str = "admin: { address: \"127.0.0.1:0\", status: true }";

async fn setup(more: &str) -> (StandIn, Files) {
    let (upstream, files) = (two_sites().await, Files::new());
    let config = files.config(&upstream, &["acme"], "").edit(OFF, ON);
    let more = more.edit_any("DIR", &files.0.path().display().to_string());
    files.write("boldgate.yaml", &format!("{config}{more}"));
    (upstream, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_log_that_was_moved_away_without_a_new_file_is_failing_until_there_is_one() {
    let (_upstream, files) = setup("audit: { to: DIR/audit.jsonl }\n").await;
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    assert_eq!(problems(admin).await, [""; 0], "control");
    let path = files.path("audit.jsonl");
    std::fs::rename(&path, files.path("audit.jsonl.1")).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(get(address, "/x").await.status, 404);
    let expected = "failing overview: the audit log was moved away, and no file can be opened in its place: \
                    it goes on in the moved one";
    becomes(PATIENCE, "it is failing", async || problems(admin).await == [expected]).await;
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(get(address, "/x").await.status, 404);
    let line = log_line(&gateway, "the log is written at its path again").await;
    assert_eq!(line["severity"], "INFO");
    assert_eq!(problems(admin).await, [""; 0]);
}

/// `serve` under a limit on the size of each file, in kilobytes.
fn serve_under(limit: u32, config: &Path) -> Process {
    let mut command = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_boldgate");
    let script = format!("ulimit -f {limit}; exec {program} serve --config {}", config.display());
    command.args(["-c", &script]);
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_lines_of_the_audit_log_are_failing_and_those_of_the_access_log_a_warning() {
    for (section, severity, log) in [
        ("audit: { to: DIR/log }\n", "failing", "audit log"),
        ("access_log: { to: DIR/log }\n", "warning", "access log"),
    ] {
        let (_upstream, files) = setup(section).await;
        files.write("log", &"x".repeat(1024));
        let gateway = serve_under(1, &files.path("boldgate.yaml"));
        let (address, admin) = (gateway.address(), gateway.ready().1);
        assert_eq!(problems(admin).await, [""; 0], "control");
        assert_eq!(get(address, "/x").await.status, 404);
        let unwritten =
            format!("{severity} overview: the {log} cannot be written, and its lines are lost");
        becomes(PATIENCE, &unwritten, async || problems(admin).await == [&*unwritten]).await;
        // As if an operator had freed the disk.
        std::fs::write(files.path("log"), "").unwrap();
        assert_eq!(get(address, "/x").await.status, 404);
        let line = log_line(&gateway, &format!("the {log} is written again")).await;
        assert_eq!((&line["severity"], &line["lines_lost"]), (&"INFO".into(), &1.into()));
        let lately = format!(
            "{severity} overview: lines of the {log} were lost in the last five minutes (1 since the start)"
        );
        assert_eq!(problems(admin).await, [lately]);
    }
}
