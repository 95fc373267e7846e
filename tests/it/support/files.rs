//! Files made for a test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use boldgate::boldbi::stand_in::StandIn;
use rcgen::SerialNumber;

use super::client_certificates::Ca;
use super::identity_provider::Provider;
use super::process::Process;
use super::stand_in::EMBED_SECRET;
use super::tls::SelfSigned;
use crate::support::edit::Edit;

/// Writes a file into `folder`. Returns its path.
pub fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    write_private(&path, text);
    path.to_str().unwrap().to_owned()
}

/// Writes a file that only its owner can read, because the gateway warns of other secrets.
fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The files of a gateway.
pub struct Files(pub tempfile::TempDir);

impl Files {
    /// A folder with the secret that the stand-in takes.
    pub fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("secret", EMBED_SECRET);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        write_private(&self.path(name), text);
    }

    /// Renames a new file over the one of this name.
    pub fn swap_in(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        write_private(&new, text);
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// A configuration with these tenants, then `more`.
    pub fn config(&self, upstream: &StandIn, tenants: &[&str], more: &str) -> String {
        let secret = self.path("secret");
        let mut text = format!(
            "listeners:\n  - {{ address: \"127.0.0.1:0\", callers: anonymous }}\n\
             admin: {{ address: \"127.0.0.1:0\" }}\n\
             servers:\n  main: {{ url: \"{}\" }}\ntenants:\n",
            upstream.url()
        );
        for tenant in tenants {
            let site = if *tenant == "acme" { "site1" } else { "site2" };
            text += &format!(
                "  {tenant}:\n    server: main\n    site: {site}\n    credential:\n      \
                 grant: embed_secret\n      username: reports@example.com\n      \
                 embed_secret: {{ file: \"{}\" }}\n      user_source: local\n",
                secret.display()
            );
        }
        text + more
    }

    pub fn serve(&self) -> Process {
        Process::serve(self.path("boldgate.yaml").to_str().unwrap())
    }
}

/// Writes a configuration that names a file of every kind, and those files. Returns their names and
/// contents.
pub fn every_kind_of_file(files: &Files) -> [(&'static str, String); 9] {
    let (ca, own) = (Ca::new("ca"), SelfSigned::new("localhost"));
    let contents = [
        ("tls.crt", own.pem()),
        ("tls.key", own.key_pem()),
        ("clients.crt", ca.pem.clone()),
        ("revoked.pem", ca.revocations(&SerialNumber::from(1))),
        ("server-ca.crt", ca.pem.clone()),
        ("issuer-ca.crt", ca.pem.clone()),
        ("secret", EMBED_SECRET.to_owned()),
        ("keys.json", Provider::new().jwks()),
        ("shared", "canary-shared-secret-of-32-bytes-or-more".to_owned()),
    ];
    for (name, content) in &contents {
        files.write(name, content);
    }
    let folder = files.0.path().display().to_string();
    files.write("boldgate.yaml", &EVERY_KIND_OF_FILE.edit_all("DIR", &folder));
    contents
}

const EVERY_KIND_OF_FILE: &str = "
listeners:
  - address: \"127.0.0.1:0\"
    callers: required
    tls:
      certificate_file: DIR/tls.crt
      key_file: DIR/tls.key
      client_ca_file: DIR/clients.crt
      client_crl_file: DIR/revoked.pem
servers:
  main: { url: \"https://localhost/bi\", ca_file: DIR/server-ca.crt }
tenants:
  acme:
    server: main
    site: site1
    credential:
      grant: embed_secret
      username: reports@example.com
      embed_secret: { file: DIR/secret }
      user_source: local
callers:
  zero:
    certificates: [ { san_dns: zero.example } ]
    may: [ { tenant: acme, routes: [read] } ]
  one:
    jwt: { issuer: one, audience: a, algorithms: [EdDSA], jwks_file: DIR/keys.json }
    may: [ { tenant: acme, routes: [read] } ]
  two:
    jwt: { issuer: two, audience: a, algorithms: [HS256], secret: { file: DIR/shared } }
    may: [ { tenant: acme, routes: [read] } ]
  three:
    jwt:
      issuer: three
      audience: a
      algorithms: [EdDSA]
      jwks_url: https://login.example/keys
      ca_file: DIR/issuer-ca.crt
    may: [ { tenant: acme, routes: [read] } ]
";
