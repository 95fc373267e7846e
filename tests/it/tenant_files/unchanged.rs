//! A reading after a change makes the tenants again that depend on what has changed, and no others.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use boldgate::config::{Settings, TenantSecrets, Unchanged};
use boldgate::tenant::Tenant;

use super::{Setup, URL};
use crate::support::edit::Edit;

impl Setup {
    /// Reads all files again after changes of those of these names.
    fn read_after(&self, before: &Settings, changed: &[&str]) -> Result<Settings, String> {
        let changed: BTreeSet<_> = changed.iter().map(|name| self.path(name)).collect();
        let unchanged = Unchanged {
            files: &before.files,
            changed: &changed,
            unusable: &HashSet::new(),
            known: &before.known,
        };
        let secrets = TenantSecrets::After(&before.tenants, Some(unchanged));
        let (files, read) = Settings::read_with(&self.path("gateway.yaml"), secrets);
        let read = read.and_then(Settings::with_all_secrets);
        read.inspect(|settings| assert!(settings.files == files))
            .map_err(|findings| findings.to_string().edit_any(&self.at(""), ""))
    }
}

fn tenant<'s>(settings: &'s Settings, name: &str) -> &'s Arc<Tenant> {
    settings.tenants.named(name).unwrap_or_else(|| panic!("there is no `{name}`"))
}

/// The tenants of these names that were made again.
fn made_again<'n>(before: &Settings, after: &Settings, names: &[&'n str]) -> Vec<&'n str> {
    let is_new = |name: &&&str| !Arc::ptr_eq(tenant(before, name), tenant(after, name));
    names.iter().filter(is_new).copied().collect()
}

const ALL: [&str; 4] = ["site1", "site2", "acme", "bolt"];

fn three_files() -> Setup {
    let setup = Setup::new(URL);
    for site in ["acme", "bolt", "first"] {
        setup.write(&format!("secrets/{site}"), site);
    }
    setup.write("tenants.d/a.yaml", "site1:\nsite2: { server: other }\n");
    setup.write("tenants.d/b.yaml", "acme:\n");
    setup.write("tenants.d/c.yaml", "bolt: { limits: { requests_per_second: 3 } }\n");
    setup
}

#[test]
fn one_changed_file_of_many_leaves_the_tenants_of_the_others_as_they_are() {
    let setup = three_files();
    let before = setup.load().unwrap();
    let nothing = setup.read_after(&before, &[]).unwrap();
    assert_eq!(made_again(&before, &nothing, &ALL), [""; 0]);
    assert!(nothing.files == before.files, "all of them count as looked at");
    assert_eq!(nothing.warnings, before.warnings);
    // Changed, with new tenants in front of others: these keep their indices.
    setup.write("tenants.d/a.yaml", "first:\nsite1: { disabled: true }\nsite2:\n");
    let changed = setup.read_after(&before, &["tenants.d/a.yaml"]).unwrap();
    assert_eq!(made_again(&before, &changed, &ALL), ["site1", "site2"]);
    assert!(tenant(&changed, "site1").disabled);
    let indices: HashSet<_> = changed.tenants.iter().map(|tenant| tenant.index).collect();
    assert_eq!(indices, (0..5).collect());
    for (index, tenant) in changed.tenants.iter().enumerate() {
        assert_eq!(tenant.index, index, "{}", tenant.name);
    }
    // Removed: at most as many move as there are indices to fill.
    setup.remove("tenants.d/b.yaml");
    let fewer = setup.read_after(&changed, &["tenants.d/b.yaml"]).unwrap();
    assert!(fewer.tenants.named("acme").is_none());
    let moved = made_again(&changed, &fewer, &["first", "site1", "site2", "bolt"]);
    assert!(moved.len() <= 1, "{moved:?}");
    // What a start reads is the same.
    let started = setup.load().unwrap();
    assert!(started.files == fewer.files);
    for name in ["first", "site1", "site2", "bolt"] {
        let (one, other) = (tenant(&fewer, name), tenant(&started, name));
        assert_eq!(one.credential.version, other.credential.version, "{name}");
        assert_eq!((one.site(), one.disabled), (other.site(), other.disabled), "{name}");
    }
}

#[test]
fn a_changed_secret_default_server_or_edition_makes_the_tenants_again_that_use_it() {
    let setup = three_files();
    let before = setup.load().unwrap();
    setup.write("secrets/acme", "another");
    let secret = setup.read_after(&before, &["secrets/acme"]).unwrap();
    assert_eq!(made_again(&before, &secret, &ALL), ["acme"]);
    assert_eq!(tenant(&secret, "acme").credential.secret.as_ref().unwrap().expose(), "another");
    let main = setup.main(URL);
    let after = |text: &str| {
        setup.write("gateway.yaml", text);
        setup.read_after(&secret, &["gateway.yaml"]).unwrap()
    };
    let elsewhere = after(&(main.clone() + "api_key_header: x-key\n"));
    assert_eq!(made_again(&secret, &elsewhere, &ALL), [""; 0], "nothing of theirs has changed");
    let other = main.edit("other: { url: ", "other: { max_connections: 7, url: ");
    assert_eq!(made_again(&secret, &after(&other), &ALL), ["site1", "site2"], "their file");
    let defaults = after(&main.edit("reports@", "others@"));
    assert_eq!(made_again(&secret, &defaults, &ALL), ALL);
    assert_eq!(&*tenant(&defaults, "bolt").credential.username, "others@example.com");
    setup.write("gateway.yaml", &main.edit("other: { url: ", "other: { edition: cloud, url: "));
    let findings = setup.read_after(&secret, &["gateway.yaml"]).map(drop).unwrap_err();
    assert!(findings.contains("`site2`"), "{findings}");
}

#[test]
fn a_fault_or_a_conflict_of_the_changed_file_is_found_with_both_places() {
    let setup = three_files();
    let before = setup.load().unwrap();
    let after = |text: &str| {
        setup.write("tenants.d/b.yaml", text);
        setup.read_after(&before, &["tenants.d/b.yaml"]).map(drop).unwrap_err()
    };
    for (text, found) in [
        ("acme: { server: none }\n", "tenants.d/b.yaml:1:17: tenants.acme.server"),
        (
            "\nsite1: { site: x }\n",
            "tenants.d/b.yaml:2:1: tenants.site1: found a second tenant of this name, the first in \
             tenants.d/a.yaml:1:1",
        ),
        (
            "acme: { site: bolt }\n",
            "tenants.d/c.yaml:1:1: tenants.bolt: found a tenant that is meant by the same requests \
             as `acme` in tenants.d/b.yaml:1:1",
        ),
    ] {
        let findings = after(text);
        assert!(findings.contains(found), "{findings}");
        // The same as at a start.
        assert_eq!(findings, setup.findings());
    }
    setup.write("tenants.d/b.yaml", "acme:\n");
    let mended = setup.read_after(&before, &["tenants.d/b.yaml"]).unwrap();
    assert_eq!(made_again(&before, &mended, &["site1", "site2", "bolt"]), [""; 0]);
}

#[test]
fn a_tenant_that_nobody_looks_at_is_a_warning_in_its_file_also_if_the_file_is_not_read_again() {
    let setup = three_files();
    let masked =
        "acme:\nbolt:\n  cors: { origins: [https://app.example] }\n  embed: { masked: true }\n";
    setup.write("tenants.d/c.yaml", "first:\n");
    setup.write("tenants.d/b.yaml", masked);
    let before = setup.load().unwrap();
    let warnings = before.warnings.to_string().edit_any(&setup.at(""), "");
    let expected =
        "tenants.d/b.yaml:2:1: tenants.bolt.embed.masked: found masked mode, and no caller";
    assert!(warnings.contains(expected), "{warnings}");
    let after = setup.read_after(&before, &[]).unwrap();
    assert_eq!(made_again(&before, &after, &["acme", "bolt", "first"]), [""; 0]);
    assert_eq!(after.warnings, before.warnings);
}
