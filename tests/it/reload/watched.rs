//! Which files a change is noticed in: all that the configuration names.

use std::collections::BTreeSet;

use boldgate::config::Settings;

use crate::support::edit::Edit;
use crate::support::files::{Files, every_kind_of_file};
use crate::support::reloads::{PATIENCE, metric, two_sites};
use crate::support::stand_in::EMBED_SECRET;
use crate::support::waiting::becomes;

#[test]
fn each_file_of_a_configuration_is_recognised_by_its_content() {
    let files = Files::new();
    let contents = every_kind_of_file(&files);
    let path = files.path("boldgate.yaml");
    let read = || {
        let (files, settings) = Settings::read(&path);
        settings.unwrap_or_else(|why| panic!("{why}"));
        files
    };
    let before = read();
    let names = contents.iter().map(|(name, _)| *name).chain(["boldgate.yaml"]);
    let expected: BTreeSet<_> = names.map(|name| files.path(name)).collect();
    assert_eq!(before.paths().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    // Each change of a file counts as one. The line end behind a secret is no part of it.
    for (name, content) in &contents {
        assert_eq!(before.changed(&read()), 0);
        let end = if ["secret", "shared"].contains(name) { "2\n" } else { "\n" };
        files.write(name, &format!("{content}{end}"));
        assert_eq!(before.changed(&read()), 1, "{name}");
        files.write(name, content);
    }
    // An unreadable file is watched too: it may become readable.
    std::fs::remove_file(files.path("keys.json")).unwrap();
    let (gone, settings) = Settings::read(&path);
    assert!(settings.is_err());
    assert_eq!((gone.paths().count(), before.changed(&gone)), (expected.len(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_and_made_again_is_still_watched() {
    let upstream = two_sites().await;
    let files = Files::new();
    // The folder above holds nothing else, so it is not watched.
    std::fs::create_dir_all(files.path("above/tls")).unwrap();
    files.write("above/tls/secret", EMBED_SECRET);
    let secret = files.path("secret").display().to_string();
    let inside = files.path("above/tls/secret").display().to_string();
    let config = files.config(&upstream, &["acme"], "").edit(&secret, &inside);
    files.write("boldgate.yaml", &config);
    let gateway = files.serve();
    for number in 2..6 {
        std::fs::remove_dir_all(files.path("above/tls")).unwrap();
        // Some file systems give a new file the inode number of the removed one.
        std::fs::create_dir(files.path("above/tls")).unwrap();
        files.write("above/tls/secret", &format!("{EMBED_SECRET}-{number}"));
        let in_force = async || metric(gateway.ready().1, "boldgate_config_generation").await;
        let took = becomes(PATIENCE, "it is in force", async || in_force().await >= number).await;
        println!("{number}: the secret in the new folder is in force after {took:?}");
    }
}
