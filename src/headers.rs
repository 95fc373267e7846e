//! Which headers go on to the server and which go back to the client. Pure.

use http::header::{
    self, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONNECTION,
    CONTENT_LENGTH, CONTENT_LOCATION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, ORIGIN, PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    VARY, WWW_AUTHENTICATE,
};

use crate::host::canonical;
use crate::request::without_port;
use crate::tenant::Server;
use crate::traceparent::{TRACEPARENT, TRACESTATE, TraceParent};

/// The id of a request, towards the server and the client.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that a proxy gave to a request. `None` if there is none, or several, or one that is too
/// long or has other characters than visible ones of ASCII without `"`, `\`, `,` and `;`.
pub fn given_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut ids = headers.get_all(&REQUEST_ID).iter();
    let id = ids.next().filter(|_| ids.next().is_none())?;
    let is_plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b',' | b';');
    let bytes = id.as_bytes();
    (!bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(is_plain)).then_some(id)
}

/// Chooses the headers of a request that go on to the server. Headers that the gateway sets
/// (`Host`, the framing, `Authorization`, `X-Forwarded-*`, `X-Request-Id`) never come from the
/// client.
#[derive(Debug)]
pub struct ToServer<'h> {
    headers: &'h HeaderMap,
    nominated: &'h [&'h str],
    private: &'h [HeaderName],
    injects: bool,
    /// Whether the request is part of a trace.
    traced: bool,
}

impl<'h> ToServer<'h> {
    /// Chooses among `headers`, without those that their `Connection` has `nominated`. The
    /// `private` ones are for the gateway and go nowhere; with `injects`, our token is put on, so
    /// the client's `Authorization` and cookies are dropped: a browser's session must not mix with
    /// the user of the token.
    pub fn new(
        headers: &'h HeaderMap,
        nominated: &'h [&'h str],
        private: &'h [HeaderName],
        injects: bool,
    ) -> Self {
        let traced = TraceParent::of(headers).is_some();
        Self { headers, nominated, private, injects, traced }
    }

    /// The headers that go on, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
        self.headers.iter().filter(|(name, _)| self.goes_on(name))
    }

    fn goes_on(&self, name: &HeaderName) -> bool {
        let credential = (self.injects
            && (*name == AUTHORIZATION || *name == COOKIE || *name == COOKIE2))
            || self.private.contains(name);
        // A server could read another trace from a malformed one than our logs have.
        let broken_trace = !self.traced && (*name == TRACEPARENT || *name == TRACESTATE);
        !credential
            && !broken_trace
            && !NEVER_TO_SERVER.contains(name)
            && is_plain(name.as_str())
            && !self.nominated.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()))
    }
}

/// `X_Forwarded_For` reads as `X-Forwarded-For` to servers that map names to variables
/// (CVE-2025-64484), so names with other characters than letters, digits and dashes are dropped. So
/// are the headers in which other proxies describe the client.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !families(name.as_bytes().first().copied()).iter().any(|start| name.starts_with(start))
}

/// The basis of a response: what the server got with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseTo {
    /// Our token, or a token for a tenant whose `cors.origins` decide on pages.
    Token,
    /// The client's own credentials, with its cookies.
    OwnCredentials,
    /// No credentials: a static file, which any page may read.
    Nothing,
}

/// Chooses the headers of a response that go back to the client: all but those of the connection,
/// its length, which `http1` decides, and, unless it is to the client's own credentials,
/// `Set-Cookie`, which belongs to the token's user. In a response to our token `Access-Control-*`
/// stays behind as well: the server cannot know which pages may use our token. `page` is the origin
/// whose pages may read the response.
pub fn to_client<'h>(
    headers: &'h HeaderMap,
    to: ResponseTo,
    page: Option<&HeaderValue>,
) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
    let cors_is_ours = to == ResponseTo::Token
        || page.is_some() && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN);
    let nominated: Vec<&str> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|option| {
            !matches!(*option, "" | "close" | "keep-alive")
                // A response cannot take its own framing away.
                && !option.eq_ignore_ascii_case(TRANSFER_ENCODING.as_str())
        })
        .collect();
    headers.iter().filter(move |(name, _)| {
        let stays = HOP_BY_HOP.contains(name)
            || **name == CONTENT_LENGTH
            || (to != ResponseTo::OwnCredentials && **name == SET_COOKIE)
            || (cors_is_ours && name.as_str().starts_with("access-control-"))
            || nominated.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()));
        !stays
    })
}

/// Takes scheme and authority from a `Location` and a `Content-Location` that begin with the URL of
/// the server: clients reach it through the gateway alone. Other values stay as they are.
pub fn localize(headers: &mut HeaderMap, server: &Server) {
    // Most responses have neither, and to look at all names is fastest.
    if !headers.keys().any(|name| *name == LOCATION || *name == CONTENT_LOCATION) {
        return;
    }
    for name in [LOCATION, CONTENT_LOCATION] {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            for value in values.iter_mut() {
                if let Some(local) = local(value, server) {
                    *value = local;
                }
            }
        }
    }
}

/// The path, query and fragment of a URL on the server; `None` for every other value.
fn local(location: &HeaderValue, server: &Server) -> Option<HeaderValue> {
    let text = location.to_str().ok()?;
    let (scheme, rest) = text.split_once("://")?;
    let (expected, default) = if server.tls { ("https", 443) } else { ("http", 80) };
    // A browser ends the authority at a backslash, too.
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\'])?);
    let host = without_port(authority);
    let port = match authority[host.len()..].strip_prefix(':').unwrap_or_default() {
        "" => Some(default),
        port => port.parse().ok(),
    };
    let own = server.authority();
    let own = own.strip_suffix(&format!(":{}", server.port)).unwrap_or(&own);
    let is_server = scheme.eq_ignore_ascii_case(expected)
        && canonical(host) == canonical(own)
        && port == Some(server.port);
    let below = path.strip_prefix(server.base_path.as_str()).filter(|_| is_server)?;
    // `//` and `/\` begin the name of a host for a browser, which ignores tabs in between.
    let is_path = path.starts_with('/')
        && !path[1..].starts_with(['/', '\\'])
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    let is_below = below.is_empty() || below.starts_with(['/', '?', '#']);
    if is_path && is_below { HeaderValue::from_str(path).ok() } else { None }
}

/// Whether these credentials authenticate the connection, so that later requests on it count as the
/// same user's (RFC 4559, section 6).
pub fn authenticates_connection(credentials: &HeaderValue) -> bool {
    // Some servers read a list here, although one credential is all that there may be.
    let mut schemes = credentials.as_bytes().split(|&byte| byte == b',').map(|credential| {
        let start = credential.trim_ascii_start();
        let start = start.strip_prefix(b"\"").unwrap_or(start);
        start.split(|byte| matches!(byte, b' ' | b'\t' | b'=' | b'"')).next().unwrap_or_default()
    });
    schemes.any(is_connection_scheme)
}

/// Whether these credentials authenticate the request alone: a bare word, or one of the usual
/// schemes. A connection that carried others is never reused.
pub fn authenticates_request(credentials: &HeaderValue) -> bool {
    let mut words = credentials.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'));
    let scheme = words.find(|word| !word.is_empty()).unwrap_or_default();
    words.all(<[u8]>::is_empty)
        || REQUEST_SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whether a server may take more than this one request on the connection for the user's: it offers
/// to authenticate connections, or says that it has done so.
pub fn may_bind_connection(response: &HeaderMap) -> bool {
    // Nearly no response has one of them: to look at all names is faster than to look for three.
    let is_one = |name: &HeaderName| {
        *name == WWW_AUTHENTICATE || *name == PROXY_AUTHENTICATE || *name == PERSISTENT_AUTH
    };
    if !response.keys().any(is_one) {
        return false;
    }
    let challenges = response.get_all(WWW_AUTHENTICATE).iter();
    let challenges = challenges.chain(response.get_all(PROXY_AUTHENTICATE));
    let mut words = challenges.flat_map(|line| {
        line.as_bytes().split(|byte| matches!(byte, b' ' | b'\t' | b',')).filter(|w| !w.is_empty())
    });
    words.any(is_connection_scheme) || response.contains_key(&PERSISTENT_AUTH)
}

fn is_connection_scheme(scheme: &[u8]) -> bool {
    CONNECTION_SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

/// Lets pages of the origin `page` read a response, unless the server has said itself which pages
/// may, for the client's own token. Caches are told that the response depends on the origin.
pub fn allow_page(headers: &mut HeaderMap, page: Option<&HeaderValue>) {
    if let Some(origin) = page
        && !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = HeaderValue::from_static("X-Request-Id, Retry-After");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    let varies = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let known = |name: &str| name == "*" || name.eq_ignore_ascii_case(ORIGIN.as_str());
    if !varies.flat_map(|value| value.split(',')).any(|name| known(name.trim())) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// Headers of one connection (RFC 9110, section 7.6.1).
static HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRAILER,
    UPGRADE,
];

/// Headers that never go on: those of the connection, those that the gateway sets, and those that
/// override the sender, the target or the method.
static NEVER_TO_SERVER: [HeaderName; 21] = [
    HOST,
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    EXPECT,
    TE,
    TRAILER,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    header::FORWARDED,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-cluster-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-replaced-path"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// Schemes of Windows authentication, which authenticate a connection.
const CONNECTION_SCHEMES: [&str; 6] =
    ["negotiate", "ntlm", "kerberos", "nego2", "negoex", "spnego"];
/// Schemes that authenticate each request by itself.
const REQUEST_SCHEMES: [&str; 3] = ["bearer", "basic", "digest"];
/// Set by IIS on a connection that stays authenticated.
static PERSISTENT_AUTH: HeaderName = HeaderName::from_static("persistent-auth");

/// Longest id of a request that is kept.
const MAX_REQUEST_ID: usize = 128;
/// RFC 2965: obsolete, but still a cookie to some servers.
static COOKIE2: HeaderName = HeaderName::from_static("cookie2");

/// Prefixes of the headers in which proxies and web servers describe the client and its request.
/// The first byte selects them, so that most headers of a request are compared with none.
fn families(first: Option<u8>) -> &'static [&'static str] {
    match first {
        Some(b'a') => &["auth-user"],
        Some(b'c') => &["cf-access-", "cf-connecting-", "client-cert", "client-verify"],
        Some(b'e') => &["eppn"],
        Some(b'f') => &["fastly-client-"],
        Some(b'm') => &["ms-aspnetcore-"],
        Some(b'o') => &["oidc-"],
        Some(b'p') => &["proxy-"],
        Some(b'r') => &["remote-"],
        Some(b's') => &["ssl-", "shib-", "sm-user", "smuser"],
        Some(b't') => &["tailscale-"],
        Some(b'w') => &["wl-proxy-"],
        Some(b'x') => &X_FAMILIES,
        _ => &[],
    }
}

const X_FAMILIES: [&str; 45] = [
    "x-forward-",
    "x-forwarded-",
    "x-original-",
    "x-azure-",
    "x-envoy-",
    "x-ms-forwarded-",
    // Certificates.
    "x-cert",
    "x-clientcert",
    "x-peer-cert",
    "x-ssl",
    "x-subject-dn",
    "x-tls-",
    "x-client-",
    "x-arr-",
    "x-amzn-mtls-",
    // Users.
    "x-access-token",
    "x-authorization",
    "x-email",
    "x-id-token",
    "x-iis-",
    "x-impersonate-",
    "x-jwt-assertion",
    "x-on-behalf-of",
    "x-proxy-user",
    "x-sso-",
    "x-user-email",
    "x-user-id",
    "x-user-name",
    "x-username",
    "x-ms-client-",
    "x-ms-token-",
    "x-amzn-oidc-",
    "x-goog-iap-",
    "x-goog-authenticated-",
    "x-remote-",
    "x-auth-",
    "x-authenticated-",
    "x-authentik-",
    "x-pomerium-",
    "x-vouch-",
    "x-webauth-",
    "x-consumer-",
    "x-credential-",
    "x-endpoint-api-",
    "x-apigateway-api-",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::nominated;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    fn names_to_server(headers: &HeaderMap, injects: bool) -> Vec<String> {
        let private = ["x-api-key", "x-user"].map(HeaderName::from_static);
        let nominated = nominated(headers).unwrap();
        let chosen = ToServer::new(headers, &nominated, &private, injects);
        chosen.iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn headers_that_the_gateway_sets_never_come_from_the_client() {
        let headers = map(&[
            ("host", "evil"),
            ("accept", "*/*"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-api-key", "bgk_x"),
            ("x-user", "a@b.example"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-anything", "x"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-original-url", "/beta"),
            ("x-http-method-override", "DELETE"),
            ("x_forwarded_host", "evil"),
            ("proxy-authorization", "Basic x"),
            ("x-request-id", "mine"),
            ("x-custom", "kept"),
        ]);
        assert_eq!(names_to_server(&headers, true), ["accept", "x-custom"]);
    }

    #[test]
    fn a_request_id_is_kept_only_if_it_is_one_short_word() {
        let longest = "x".repeat(MAX_REQUEST_ID);
        for id in ["a", "00f067aa0ba902b7", "Root=1-67891233-abcdef", "a/b+c==", &longest] {
            let headers = HeaderMap::from_iter([(REQUEST_ID.clone(), id.parse().unwrap())]);
            assert_eq!(given_request_id(&headers).unwrap(), id);
        }
        let too_long = "x".repeat(MAX_REQUEST_ID + 1);
        for id in ["", "a b", "a\tb", "a,b", "a\"b", "a\\b", "a;b", "é", &too_long] {
            let headers = HeaderMap::from_iter([(REQUEST_ID.clone(), id.parse().unwrap())]);
            assert_eq!(given_request_id(&headers), None, "{id}");
        }
        assert_eq!(given_request_id(&map(&[("x-request-id", "a"), ("x-request-id", "a")])), None);
        assert_eq!(given_request_id(&HeaderMap::new()), None);
    }

    #[test]
    fn a_malformed_traceparent_is_not_forwarded_and_takes_its_state_with_it() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = map(&[("traceparent", trace), ("tracestate", "a=b"), ("accept", "*/*")]);
        assert_eq!(names_to_server(&headers, true), ["traceparent", "tracestate", "accept"]);
        let headers = map(&[("traceparent", "x"), ("tracestate", "a=b"), ("accept", "*/*")]);
        assert_eq!(names_to_server(&headers, true), ["accept"]);
        let headers = map(&[("tracestate", "a=b"), ("accept", "*/*")]);
        assert_eq!(names_to_server(&headers, true), ["accept"]);
    }

    #[test]
    fn the_clients_own_credentials_go_on_only_where_none_is_put_on() {
        let headers = map(&[("authorization", "Bearer x"), ("cookie", "a=b"), ("accept", "*/*")]);
        assert_eq!(names_to_server(&headers, true), ["accept"]);
        assert_eq!(names_to_server(&headers, false), ["authorization", "cookie", "accept"]);
    }

    #[test]
    fn headers_named_by_connection_are_not_forwarded() {
        let headers = map(&[
            ("connection", "close, X-Drop ,TE"),
            ("x-drop", "1"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        assert_eq!(names_to_server(&headers, true), ["accept"]);
        let response = map(&[
            ("connection", "x-drop, content-length"),
            ("x-drop", "1"),
            ("content-length", "3"),
            ("set-cookie", "a=b"),
        ]);
        let kept: Vec<_> =
            to_client(&response, ResponseTo::Token, None).map(|(name, _)| name.clone()).collect();
        assert_eq!(kept, [""; 0]);
        let kept: Vec<_> = to_client(&response, ResponseTo::OwnCredentials, None)
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(kept, [SET_COOKIE]);
    }

    #[test]
    fn variants_of_identity_headers_are_dropped_and_headers_of_bold_bi_go_on() {
        for name in [
            "x-clientcert-dn",
            "x-sslclient-cn",
            "x-ssl",
            "x-cert-subject-dn",
            "x-subject-dn",
            "x-peer-cert",
            "wl-proxy-client-cert",
            "client-verify",
            "sm-user",
            "smuser",
            "auth-user",
            "shib-user",
            "eppn",
            "x-username",
            "x-user-email",
            "x-email",
            "x-proxy-user",
            "x-sso-user",
            "x-impersonate-user",
            "x-on-behalf-of",
            "x-id-token",
            "x-access-token",
            "x-jwt-assertion",
            "x-authorization",
            "x-iis-windowsauthtoken",
            "x-azure-clientip",
            "fastly-client-ip",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "x-envoy-external-address",
            "x-forward-for",
        ] {
            assert_eq!(names_to_server(&map(&[(name, "x")]), true), [""; 0], "{name}");
        }
        for name in ["clientid", "client-type", "dashboardpath", "mode", "isembed", "x-custom"] {
            assert_eq!(names_to_server(&map(&[(name, "x")]), true), [name]);
        }
    }

    #[test]
    fn a_url_of_the_server_is_known_by_scheme_host_and_port_in_any_spelling() {
        let location = |url: &str, value: &str| {
            let mut server = crate::tenant::samples::server();
            let (scheme, rest) = url.split_once("://").unwrap();
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (host, port) = authority.rsplit_once('|').unwrap();
            server.host = host.to_owned();
            server.port = port.parse().unwrap();
            (server.tls, server.base_path) = (scheme == "https", path.to_owned());
            let mut headers = map(&[("accept", "*/*")]);
            headers.insert(LOCATION, HeaderValue::from_str(value).unwrap());
            localize(&mut headers, &server);
            headers[LOCATION].to_str().unwrap().to_owned()
        };
        for (url, value, local) in [
            ("https://bi.example.com|443/bi", "https://bi.example.com/bi/x", "/bi/x"),
            ("https://bi.example.com|443/bi", "https://BI.example.com.:443/bi/x", "/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com:/bi/x", "/bi/x"),
            ("http://bi|80", "http://bi/", "/"),
            ("http://bi|80", "http://bi:0080/x//y", "/x//y"),
            ("http://bi|6005/bi", "http://bi:6005/bi#x", "/bi#x"),
            ("https://fd00::a|443/bi", "https://[FD00:0::a]/bi/x", "/bi/x"),
            ("https://fd00::a|8443/bi", "https://[fd00::a]:8443/bi/x", "/bi/x"),
        ] {
            assert_eq!(location(url, value), local, "{url} {value}");
        }
        for (url, value) in [
            ("https://bi.example.com|443/bi", "https://bi.example.com:80/bi/x"),
            ("https://bi.example.com|443/bi", "http://bi.example.com/bi/x"),
            ("https://bi.example.com|443/bi", "http://bi.example.com:443/bi/x"),
            ("https://bi.example.com|8443/bi", "https://bi.example.com/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com.evil/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com..:443/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com:443:443/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com%2f/bi/x"),
            ("https://bi.example.com|443/bi", "https://bi.example.com/%62i/x"),
            ("https://bi.example.com|443", "https://bi.example.com"),
            ("https://bi.example.com|443", "https://bi.example.com?x"),
            ("https://bi.example.com|443", "https://bi.example.com//evil.example"),
            ("https://bi.example.com|443", "https://bi.example.com/\\evil.example"),
            ("https://bi.example.com|443", "https://bi.example.com/\t/evil.example"),
            ("https://fd00::a|443/bi", "https://fd00::a/bi/x"),
            ("https://fd00::a|443/bi", "https://[fd00::b]/bi/x"),
        ] {
            assert_eq!(location(url, value), value, "{url}");
        }
    }

    #[test]
    fn credentials_of_windows_authentication_are_known_in_any_spelling() {
        let credentials = |value| authenticates_connection(&HeaderValue::from_static(value));
        for value in [
            "NTLM TlRM",
            "negotiate YII",
            "Negotiate\tYII",
            "NTLM",
            "Kerberos x",
            "NTLM,x",
            "Bearer x, NTLM TlRM",
            ",NTLM TlRM",
            "\"NTLM\" TlRM",
            "NTLM=TlRM",
            "SPNEGO YII",
        ] {
            assert!(credentials(value), "{value}");
        }
        for value in ["Bearer NTLM", "Basic TlRM", "NTLMx y", "bgk_ntlm", "ntlm-like x", ""] {
            assert!(!credentials(value), "{value}");
        }
        let request = |value| authenticates_request(&HeaderValue::from_static(value));
        for value in ["Bearer x", "basic eDp5", "Digest a=b, c=d", "bold-bi-key", " key ", ""] {
            assert!(request(value), "{value}");
        }
        for value in ["Hawk x", "Custom x y", "ntlmssp x"] {
            assert!(!request(value), "{value}");
        }
        for value in ["NTLM", "Bearer realm=\"a b\", Negotiate", "negotiate,NTLM", "Negotiate YII="]
        {
            assert!(may_bind_connection(&map(&[("www-authenticate", value)])), "{value}");
        }
        assert!(may_bind_connection(&map(&[("persistent-auth", "true")])));
        assert!(!may_bind_connection(&map(&[("www-authenticate", "Bearer realm=\"bi\"")])));
    }

    #[test]
    fn a_connection_header_that_names_no_headers_or_too_many_is_refused() {
        for value in ["\"x-forwarded-for\"", ":authority", "a,b,c,d,e,f,g,h,i,j,k"] {
            let headers = map(&[("connection", value)]);
            assert!(nominated(&headers).is_err(), "{value}");
        }
        assert!(nominated(&map(&[("connection", "a,b,c,d,e,f,g,h,i,j")])).is_ok());
    }
}
