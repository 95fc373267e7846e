//! What `check` says of files.

use super::*;

#[test]
fn check_reports_the_faults_of_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let good = write(&folder, "good.yaml", &config("http://127.0.0.1:1/bi", &secret));
    let other = config("http://127.0.0.1:1/bi", &secret);
    let typo = write(&folder, "typo.yaml", &other.edit("user_source", "user_sorce"));
    let two = other.edit("embed_secret\n", "embed_secrets\n").edit_all("127.0.0.1:0", "here");
    let two = write(&folder, "two.yaml", &two);

    let ended = run(&["check", &good]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let without_secrets = run(&["check", "--no-secrets", &good]);
    assert_eq!((without_secrets.code, &*without_secrets.stderr), (Some(0), ""));
    assert_eq!(run(&["check", "--config", &good]).stdout, ended.stdout, "as for `serve`");
    let mut command = Command::new(env!("CARGO_BIN_EXE_boldgate"));
    command.arg("check").env_clear().env("BOLDGATE_CONFIG", &good);
    assert_eq!(Process::start(command).end().stdout, ended.stdout, "the one that `serve` reads");
    for arguments in [&["--config", &good][..], &[&good]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boldgate"));
        command.arg("check").args(arguments).env_clear().env("BOLDGATE_CONFIG", "/nonexistent");
        let only = Process::start(command).end();
        assert_eq!((only.code, only.stdout), (Some(0), ended.stdout.clone()), "{arguments:?}");
    }
    assert_eq!(ended.stdout, format!("{good}: OK\n"));

    let ended = run(&["check", &typo, &good, &two, "/nonexistent.yaml"]);
    assert_eq!(ended.code, Some(78));
    assert_eq!(ended.stdout, format!("{good}: OK\n"));
    for said in [&typo, "user_sorce", "hint", &two, "embed_secrets", "listeners[0].address"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert!(ended.stderr.contains("/nonexistent.yaml: cannot be read"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
}

/// As root, in a process of another user, because root may read everything.
#[test]
fn check_names_the_user_that_may_not_read_a_file_and_the_files_owner() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    let (binary, secret, closed) = (at("boldgate"), at("secret"), at("closed"));
    std::fs::copy(env!("CARGO_BIN_EXE_boldgate"), &binary).unwrap();
    std::fs::write(&secret, "canary").unwrap();
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("secret"), "canary").unwrap();
    let owner = std::fs::metadata(&secret).unwrap().uid();
    let is_root = geteuid().is_root();
    let user = if is_root { 65_534 } else { owner };
    let check = |config: &str| {
        std::fs::write(at("gateway.yaml"), config).unwrap();
        let mut command = Command::new(&binary);
        command.arg("check").arg(at("gateway.yaml")).env_clear();
        if is_root {
            command.uid(user).gid(user);
        }
        Process::start(command).end()
    };
    let open = config("https://bi.example.com/bi", secret.to_str().unwrap());
    mode(&secret, if is_root { 0o600 } else { 0o000 });
    let expected = format!(
        "found a file `{}` from which no secret can be read: it cannot be read: Permission denied \
         (os error 13): boldgate runs as user {user} and group ",
        secret.display()
    );
    let ended = check(&open);
    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    let belongs = format!(", the file belongs to user {owner} and group ");
    assert!(ended.stderr.contains(&belongs), "{}", ended.stderr);
    assert!(ended.stderr.contains("`chgrp boldgate` and `chmod 0640`"), "{}", ended.stderr);

    // The token of the admin API, made as root, is root's alone; the embed secret can be read.
    let (token, readable) = (at("token"), at("readable"));
    std::fs::write(&token, "canary-canary-canary").unwrap();
    std::fs::write(&readable, "canary").unwrap();
    mode(&readable, 0o644);
    let admin = format!("actions: true, token_file: {} }}", token.display());
    let with_token = open
        .edit(&secret.display().to_string(), readable.to_str().unwrap())
        .edit("address: \"127.0.0.1:0\" }", &format!("address: \"127.0.0.1:0\", {admin}"));
    mode(&token, if is_root { 0o600 } else { 0o000 });
    let ended = check(&with_token);
    assert_eq!(ended.code, Some(78));
    let named = format!("found a file `{}` of no use: it cannot be read", token.display());
    for said in [&*named, &*belongs, "hint: ", "`chgrp boldgate` and `chmod 0640`"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    mode(&token, 0o644);
    assert_eq!(check(&with_token).code, Some(0), "the control");

    mode(&closed, if is_root { 0o700 } else { 0o000 });
    let ended =
        check(&open.edit(&secret.display().to_string(), closed.join("secret").to_str().unwrap()));
    mode(&closed, 0o700);
    let expected = format!(", the folder `{}` belongs to user {owner} and ", closed.display());
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("runs as user {user} and ")), "{}", ended.stderr);

    // Control: the user may read it.
    mode(&secret, 0o644);
    let ended = check(&open);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn check_warns_of_settings_that_are_most_likely_not_meant_and_ends_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let secret = write(&folder, "secret", EMBED_SECRET);
    let file = write(&folder, "gateway.yaml", &config("http://bi.example.com", &secret));
    let ended = run(&["check", &file]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, format!("{file}: OK\n"));
    for said in ["found `http://` to `bi.example.com`", "does not end in `/bi`"] {
        let line = ended.stderr.lines().find(|line| line.contains(said));
        assert!(line.is_some_and(|line| line.starts_with("warning: ")), "{}", ended.stderr);
    }
}

#[test]
fn check_can_skip_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("http://127.0.0.1:1/bi", "/nonexistent/secret");
    let elsewhere = write(&folder, "elsewhere.yaml", &text);
    let ended = run(&["check", &elsewhere]);
    assert_eq!((ended.code, &*ended.stdout), (Some(78), ""));
    assert!(ended.stderr.contains("acme.credential.embed_secret"), "{}", ended.stderr);
    assert_eq!(run(&["check", "--no-secrets", &elsewhere]).code, Some(0));
}

#[test]
fn shipped_files_pass_the_check_in_one_call() {
    let mut arguments = vec!["check", "--no-secrets"];
    let shipped = ["config/sidecar.yaml", "config/gateway.yaml", "config/multi-tenant.yaml"];
    arguments.extend(shipped);
    let ended = run(&arguments);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout, shipped.map(|file| format!("{file}: OK\n")).concat());
}
