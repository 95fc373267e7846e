//! The cause of a fault of the store, as far as its error tells it, and what to do about it. Pure.

use strum::IntoStaticStr;

/// A kind of faults with one remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum StoreCause {
    /// Nothing listens there.
    Refused,
    /// No address is known for the name.
    UnknownHost,
    /// There is no reply in time.
    Silent,
    /// The connection was closed.
    Closed,
    /// The user or the password is refused.
    Login,
    /// The ACL lacks a right.
    Rights,
    /// The memory is full.
    Memory,
    /// It takes no writes at the moment.
    ReadOnly,
    /// It loads its data.
    Loading,
    /// A part of the Cluster has no master.
    Cluster,
    /// The sentinels know no master, or name another one.
    Sentinel,
    /// Its certificate is not trusted.
    Certificate,
    /// It refuses or misses the client's certificate.
    ClientCertificate,
    /// It does not speak TLS.
    NoTls,
    /// It is no Redis.
    NoRedis,
    /// Anything else.
    Other,
}

impl StoreCause {
    /// The cause in the words of an error.
    pub fn of(error: &str) -> Self {
        let error = error.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| error.contains(word));
        let known: [(&[&str], Self); 16] = [
            (&["wrongpass", "noauth", "authentication failed", "password"], Self::Login),
            (&["noperm", "no permission", "can't run this command", "acl fail"], Self::Rights),
            (&["oom ", "maxmemory"], Self::Memory),
            (&["readonly", "noreplicas", "masterdown", "misconf"], Self::ReadOnly),
            (&["loading"], Self::Loading),
            (&["clusterdown"], Self::Cluster),
            (&["sentinel"], Self::Sentinel),
            (&["invalid peer certificate"], Self::Certificate),
            (&CLIENT_CERTIFICATE_ALERTS, Self::ClientCertificate),
            (&["corrupt message", "invalidcontenttype"], Self::NoTls),
            (&["lookup address", "name or service", "no address"], Self::UnknownHost),
            (&["connection refused"], Self::Refused),
            (&["no reply within", "no connection within", "timed out"], Self::Silent),
            (&["parse error", "unexpected `", "invalid response"], Self::NoRedis),
            (&["clusterconnectionnotfound"], Self::Cluster),
            (&["reset", "broken pipe", "end of file", "eof", "closed", "terminated"], Self::Closed),
        ];
        known.into_iter().find(|(words, _)| says(words)).map_or(Self::Other, |(_, cause)| cause)
    }

    /// The words of `error` for operators: those about another protocol say nothing.
    pub fn in_words(self, error: String) -> String {
        if self == Self::NoRedis { "its replies are not those of a Redis".into() } else { error }
    }

    /// The remedy, in words.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Refused => "start the store, or correct address and port in `token_store.redis`",
            Self::UnknownHost => {
                "correct the host in `token_store.redis`, or the DNS of this machine: it has no \
                 address for that name"
            }
            Self::Silent => {
                "look whether the store is stalled or overloaded, and whether a firewall in between \
                 drops packets; `rediss://` at a port without TLS is silent, too"
            }
            Self::Closed => {
                "look at the store's log: it was stopped, its `maxclients` is reached, its port is one \
                 of TLS (`rediss://`), or it demands another client certificate \
                 (`token_store.redis.client_certificate_file` and `client_key_file`)"
            }
            Self::Login => "correct `username` and `password` of `token_store.redis`",
            Self::Rights => {
                "give the user of the store all rights in docs/fleet.md: `boldgate doctor` names those \
                 that are missing"
            }
            Self::Memory => "raise `maxmemory` of the store, or set `maxmemory-policy allkeys-lru`",
            Self::ReadOnly => {
                "name the master in `token_store.redis` and not a replica; otherwise look at \
                 `min-replicas-to-write` and at the disk of the store"
            }
            Self::Loading => "wait: the store loads its data",
            Self::Cluster => {
                "look at `redis-cli cluster info`: a part of the Cluster has no master"
            }
            Self::Sentinel => {
                "compare `token_store.redis.sentinel` with `redis-cli -p 26379 sentinel masters`"
            }
            Self::Certificate => {
                "give the CA of the store's certificate in `token_store.redis.ca_file`; the \
                 certificate must name the configured host and not have ended"
            }
            Self::ClientCertificate => {
                "set or renew `token_store.redis.client_certificate_file` and `client_key_file`: the store \
                 demands a client certificate of a CA that it trusts (its `tls-ca-cert-file`)"
            }
            Self::NoTls => "its port does not speak TLS: use its TLS port, or `redis://`",
            Self::NoRedis => {
                "correct address and port in `token_store.redis`: another program is there"
            }
            Self::Other => "look at the store and its log; `boldgate doctor` tries it step by step",
        }
    }
}

/// Alerts by which a store refuses the client's certificate, or its absence (RFC 8446, section 6.2;
/// with TLS 1.2 its absence is a failure of the handshake).
const CLIENT_CERTIFICATE_ALERTS: [&str; 9] = [
    "alert: accessdenied",
    "alert: badcertificate",
    "alert: certificateexpired",
    "alert: certificaterequired",
    "alert: certificaterevoked",
    "alert: certificateunknown",
    "alert: handshakefailure",
    "alert: unknownca",
    "alert: unsupportedcertificate",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_cause() {
        for (error, cause) in [
            ("Connection refused (os error 111)", StoreCause::Refused),
            (
                "failed to lookup address information: Name or service not known",
                StoreCause::UnknownHost,
            ),
            ("no reply within 50ms", StoreCause::Silent),
            ("no connection within 700ms", StoreCause::Silent),
            ("Password authentication failed - AuthenticationFailed: WRONGPASS", StoreCause::Login),
            (
                "Pipeline failure: [(Index 1, error: NOPERM this user has no permissions to run 'eval')]",
                StoreCause::Rights,
            ),
            (
                "Pipeline failure: [(Index 0, error: OOM command not allowed when used memory > \
                 'maxmemory'.)]",
                StoreCause::Memory,
            ),
            (
                "Pipeline failure: [(Index 0, error: NoPerm: this user has no permissions)]",
                StoreCause::Rights,
            ),
            ("READONLY You can't write against a read only replica.", StoreCause::ReadOnly),
            ("NOREPLICAS Not enough good replicas to write.", StoreCause::ReadOnly),
            ("CLUSTERDOWN The cluster is down", StoreCause::Cluster),
            ("the sentinel knows no master of this name", StoreCause::Sentinel),
            ("invalid peer certificate: UnknownIssuer", StoreCause::Certificate),
            ("received fatal alert: CertificateRequired", StoreCause::ClientCertificate),
            ("received fatal alert: UnknownCA", StoreCause::ClientCertificate),
            ("received fatal alert: BadCertificate", StoreCause::ClientCertificate),
            ("received fatal alert: AccessDenied", StoreCause::ClientCertificate),
            ("received fatal alert: HandshakeFailure", StoreCause::ClientCertificate),
            ("received fatal alert: ProtocolVersion", StoreCause::Other),
            ("received fatal alert: InternalError", StoreCause::Other),
            ("received corrupt message of type InvalidContentType", StoreCause::NoTls),
            ("Parse error at 1\nUnexpected `H`", StoreCause::NoRedis),
            ("Connection reset by peer (os error 104)", StoreCause::Closed),
            ("broken pipe", StoreCause::Closed),
            ("something else", StoreCause::Other),
        ] {
            assert_eq!(StoreCause::of(error), cause, "{error}");
        }
        let words = StoreCause::NoRedis.in_words("Parse error at 1\nUnexpected".into());
        assert_eq!(words, "its replies are not those of a Redis");
    }
}
