//! Certificates, keys and revocation lists that no signature can be verified with.

use super::*;

/// Public keys of kinds that no signature is verified with here, as algorithm and bits.
fn unverifiable_keys() -> [(&'static str, Made); 5] {
    let made = || Made::by_req(|_| ());
    let rsa = |bytes: usize| {
        let n = element(0x02, &[vec![0], vec![0xff; bytes]].concat());
        sequence(&[&n, &element(0x02, &[1, 0, 1])])
    };
    let (point, null) = ([&[4][..], &[7; 132]].concat(), element(0x05, &[]));
    [
        ("P-521", made().with_public_key(&[&EC_PUBLIC_KEY, &SECP521R1], &point)),
        ("RSA-PSS", made().with_public_key(&[&RSASSA_PSS], &rsa(256))),
        ("Ed448", made().with_public_key(&[&ED448], &[7; 57])),
        ("RSA of 1024 bits", made().with_public_key(&[&RSA, &null], &rsa(128))),
        ("RSA of 16384 bits", made().with_public_key(&[&RSA, &null], &rsa(2048))),
    ]
}

#[test]
fn cas_whose_key_no_signature_can_be_verified_with_are_warnings_in_each_file() {
    let folder = Folder::new();
    assert_eq!(folder.settings().unwrap().warnings.lines().count(), 0);
    fs::remove_file(folder.path("revoked.pem")).unwrap();
    let config = folder.read("gateway.yaml");
    let lines: Vec<_> = config.lines().filter(|line| !line.contains("client_crl_file")).collect();
    folder.write("gateway.yaml", lines.join("\n"));
    for (key, file) in [KEYS[0], KEYS[1], KEYS[4]] {
        let good = folder.read(file);
        let place = format!("{}:{} ", folder.path(file).display(), good.lines().count() + 1);
        for (what, made) in unverifiable_keys() {
            folder.write(file, good.clone() + &made.pem());
            let settings =
                folder.settings().unwrap_or_else(|findings| panic!("{what}: {findings}"));
            let warnings: Vec<_> = settings.warnings.lines().collect();
            assert_eq!(warnings.len(), 1, "{key}, {what}: {warnings:?}");
            for word in [key, &place, "key", "2048 to 8192 bits, P-256, P-384"] {
                assert!(warnings[0].contains(word), "{what}: {word} is not in {}", warnings[0]);
            }
        }
        folder.write(file, good);
    }
}

/// A readable file is not reported as unreadable.
#[test]
fn a_private_key_of_a_kind_that_cannot_be_used_is_named_as_such() {
    let folder = Folder::new();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let zero = element(0x02, &[0]);
    let inner = element(0x04, &sequence(&[&element(0x02, &[1]), &element(0x04, &[7; 66])]));
    let p521 = sequence(&[&zero, &sequence(&[&EC_PUBLIC_KEY, &SECP521R1]), &inner]);
    let number = element(0x02, &[7; 64]);
    let rsa_1024 = sequence(&[&zero, &number, &number, &number, &number, &number]);
    let sec1 = sequence(&[&element(0x02, &[1]), &element(0x04, &[7; 66])]);
    for (what, content, words) in [
        ("P-521", pem("PRIVATE KEY", &p521), "of a kind that cannot be used"),
        ("RSA-1024", pem("RSA PRIVATE KEY", &rsa_1024), "of a kind that cannot be used"),
        ("P-521 in SEC 1", pem("EC PRIVATE KEY", &sec1), "of a kind that cannot be used"),
        ("nothing", pem("PRIVATE KEY", &element(0x30, &[])), "that cannot be read"),
        ("no DER", pem("PRIVATE KEY", &[0x30, 9, 7]), ""),
    ] {
        folder.write("tls.key", content);
        let findings = folder.settings().err().unwrap_or_else(|| panic!("{what}: accepted"));
        assert!(findings.contains(words), "{what}: {words:?} is not in {findings}");
    }
}

/// Object identifiers in DER.
const EC_PUBLIC_KEY: [u8; 9] = [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

const SECP521R1: [u8; 7] = [0x06, 5, 0x2b, 0x81, 4, 0, 0x23];

const RSASSA_PSS: [u8; 11] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a];

const RSA: [u8; 11] = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

const ED448: [u8; 5] = [0x06, 3, 0x2b, 0x65, 0x71];

/// A PEM file of revocations whose parts `change` has changed: what is signed, how, and the
/// signature.
fn rebuilt(list: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> String {
    let der = CertificateRevocationListDer::from_pem_slice(list.as_bytes()).unwrap();
    let mut parts = elements(content(&der));
    change(&mut parts);
    let der = sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let lines = STANDARD.encode(der).into_bytes();
    let lines: Vec<_> = lines.chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}

/// The same list, signed with SHA-1 as it says.
fn with_sha1(list: &str) -> String {
    rebuilt(list, |parts| {
        let algorithm = sequence(&[&ECDSA_WITH_SHA1]);
        let mut fields = elements(content(&parts[0]));
        fields[1].clone_from(&algorithm);
        parts[0] = sequence(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
        parts[1] = algorithm;
    })
}

/// With such a list no client could prove that it is not revoked: all would be locked out.
#[test]
fn a_revocation_list_that_no_client_ca_has_signed_verifiably_is_a_finding_with_its_line() {
    let folder = Folder::new();
    let (ca, stranger, namesake) = (Ca::new("clients"), Ca::new("others"), Ca::new("clients"));
    folder.write("clients.pem", &ca.pem);
    let [good, foreign, renamed] = [&ca, &stranger, &namesake].map(|ca| ca.revocations(&1.into()));
    let tampered = rebuilt(&good, |parts| *parts[2].last_mut().unwrap() ^= 1);
    for (what, list, word) in [
        ("of another CA", &foreign, "`CN=others`, which is not in `client_ca_file`"),
        ("of another CA of the same name", &renamed, "not signed with the key of"),
        ("tampered with", &tampered, "not signed with the key of"),
        ("with SHA-1", &with_sha1(&good), "SHA-1"),
    ] {
        folder.write("revoked.pem", list);
        let findings = folder.settings().err().unwrap_or_else(|| panic!("{what}: accepted"));
        let place = format!("{}:1 ", folder.path("revoked.pem").display());
        for word in [word, &place, "listeners[0].tls.client_crl_file", "hint: "] {
            assert!(findings.contains(word), "{what}: {word:?} is not in {findings}");
        }
    }
    // Beside a valid list, the faulty one could still be looked at first.
    for list in [&renamed, &tampered, &with_sha1(&good)] {
        folder.write("revoked.pem", good.clone() + list);
        let findings = folder.settings().expect_err("the second list counts as well");
        let line = good.lines().count() + 1;
        assert!(findings.contains(&format!("revoked.pem:{line} ")), "{findings}");
    }
    // Controls: the right list, and the key of one of two CAs with one name.
    let warnings = |cas: &[&Ca], lists: &[&String]| {
        folder.write("clients.pem", cas.iter().map(|ca| ca.pem.as_str()).collect::<String>());
        folder.write("revoked.pem", lists.iter().map(|list| list.as_str()).collect::<String>());
        folder
            .settings()
            .unwrap_or_else(|findings| panic!("{findings}"))
            .warnings
            .lines()
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(warnings(&[&ca], &[&good]), "");
    assert_eq!(warnings(&[&namesake, &ca], &[&good]), "");
    assert_eq!(warnings(&[&ca, &stranger], &[&good, &foreign]), "");
    // Other clients still get in, and CAs below one of the file may have lists as well.
    let said = warnings(&[&ca], &[&good, &foreign]);
    assert!(said.contains("`CN=others`, which is not in `client_ca_file`"), "{said}");
    let said = warnings(&[&ca, &stranger], &[&good]);
    assert!(said.contains("clients.pem:") && said.contains("no revocation list"), "{said}");
}
