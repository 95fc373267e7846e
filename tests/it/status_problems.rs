//! The problems of the status API say what fails, and warn of what serves on.

use std::path::Path;
use std::process::Command;

use boldgate::boldbi::stand_in::StandIn;

use crate::support::admin::{problems, read_json};
use crate::support::client::Client;
use crate::support::edit::Edit;
use crate::support::files::Files;
use crate::support::process::Process;
use crate::support::reloads::{ACME, BOLT, PATIENCE, get, log_line, metric, two_sites};
use crate::support::stand_in::EMBED_SECRET;
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

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_rejected_above_the_limit_are_failing() {
    let (_upstream, files) = setup("limits: { max_connections: 1 }\n").await;
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    let _first = Client::connect(address).await;
    assert_eq!(problems(admin).await, [""; 0], "control");
    assert_eq!(Client::connect(address).await.response().await.code(), "overloaded");
    let text = "failing overview: clients were rejected with 503 in the last five minutes, because too many \
                connections were open (1 since the start)";
    assert_eq!(problems(admin).await, [text]);
}

/// The states of all tenants, by their names.
async fn states(admin: std::net::SocketAddr) -> Vec<String> {
    let all = read_json(admin, "/api/v1/tenants").await;
    let tenants = all["tenants"].as_array().unwrap().iter();
    tenants.map(|tenant| tenant["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_that_the_gateway_still_has_is_a_warning_until_it_is_back() {
    let (_upstream, files) = setup("").await;
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    assert_eq!(states(admin).await, ["ok"], "control");
    std::fs::remove_file(files.path("secret")).unwrap();
    let expected = "warning tenants: 1 of 1 tenants (acme): the secret cannot be used; the former one is used on, and a \
                    restart would lose it";
    becomes(PATIENCE, "it is noticed", async || problems(admin).await == [expected]).await;
    assert_eq!(states(admin).await, ["former_secret"]);
    let found = read_json(admin, "/api/v1/tenants?state=former_secret").await;
    assert_eq!(found["found"], 1);
    assert_eq!(read_json(admin, "/api/v1/status").await["tenants"]["secret_unreadable"], 0);
    assert_eq!(get(address, ACME).await.status, 200);
    files.swap_in("secret", EMBED_SECRET);
    let line = log_line(&gateway, "the secret of a tenant can be used again").await;
    assert_eq!((&line["severity"], &line["boldgate.tenant"]), (&"INFO".into(), &"acme".into()));
    assert_eq!(problems(admin).await, [""; 0]);
    assert_eq!(states(admin).await, ["ok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_changed_secret_is_a_warning_for_tenants_that_have_a_token_and_failing_for_others()
 {
    let (upstream, files) = (two_sites().await, Files::new());
    files.write("boldgate.yaml", &files.config(&upstream, &["acme", "bolt"], "").edit(OFF, ON));
    let gateway = files.serve();
    let (address, admin) = (gateway.address(), gateway.ready().1);
    assert_eq!(get(address, ACME).await.status, 200);
    files.swap_in("secret", "canary-with-a-typo");
    let warning = "warning tenants: 1 of 2 tenants (acme): the changed secret gives no token yet; tokens by the former one \
                   serve for an hour after the change at most";
    becomes(PATIENCE, "it is refused", async || problems(admin).await == [warning]).await;
    assert_eq!(metric(admin, "boldgate_tenant_secret_unproven{tenant=\"acme\"}").await, 1);
    assert_eq!(states(admin).await, ["former_secret", "never_used"]);
    assert_eq!(get(address, BOLT).await.status, 502, "it has no token");
    let failing = "failing tenants: 1 of 2 tenants (bolt): the last exchange failed";
    assert_eq!(problems(admin).await, [failing, warning]);
    files.swap_in("secret", EMBED_SECRET);
    let proven = "the changed secret of a tenant gives tokens, and is used from now on";
    let line = log_line(&gateway, proven).await;
    assert_eq!(line["boldgate.tenant"], "acme", "{line}");
    assert_eq!(get(address, BOLT).await.status, 200);
    becomes(PATIENCE, "all is well", async || problems(admin).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_that_is_gone_is_to_be_put_back() {
    let (_upstream, files) = setup("").await;
    let gateway = files.serve();
    gateway.ready();
    let text = std::fs::read_to_string(files.path("boldgate.yaml")).unwrap();
    std::fs::remove_file(files.path("boldgate.yaml")).unwrap();
    let refused = "the changed configuration is refused: the active configuration stays as a whole";
    let line = log_line(&gateway, refused).await;
    assert!(
        line["hint"].as_str().unwrap().starts_with("put the configuration file back"),
        "{line}"
    );
    files.swap_in("boldgate.yaml", &text);
    log_line(&gateway, "the files hold the active configuration again").await;
}
