//! The paths of a Bold BI that the embed SDK needs beside a site's API, as data: path, source. All
//! other paths stay closed: pages of the UI, sign-in, administration, WebSocket, internal jobs.

use http::Method;

use crate::policy::UiRoute;

/// Where a path is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UiSource {
    /// Requests of the embed SDK in a browser.
    Browser,
    /// The text of the SDK (boldbi-embedded-sdk at e44039a).
    Sdk,
    /// The vendor's ingress and proxy files.
    Ingress,
}

use UiSource::{Browser, Ingress, Sdk};

/// Folders of static files, and files, below the path of the server's URL.
pub(super) const OF_SERVER: [(&str, UiSource); 7] = [
    ("/cdn", Browser),
    ("/webdesignerservice", Browser),
    ("/designer/localization", Browser),
    ("/Content", Sdk),
    ("/theme", Sdk),
    ("/user-interface/fonts", Sdk),
    ("/health-check", Ingress),
];

/// The same from the root on: the administration has them.
pub(super) const OF_ROOT: [(&str, UiSource); 2] =
    [("/ums/theme/styles", Browser), ("/ums/user-interface/fonts", Browser)];

/// The folder of the data service, below the path of the server's URL.
const DATA: &str = "/designer/v1.0/";

/// The kind of a path that is passed on to a server whose URL has the path `base`; `None` for every
/// other path. Spelling is exact. A path with an encoded character or with parameters is none of
/// these, so that no server reads another path in it.
pub(super) fn classify_ui(method: &Method, base: &str, path: &str) -> Option<UiRoute> {
    let is_plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    if !is_plain {
        return None;
    }
    let below = path.strip_prefix(base);
    if below.is_some_and(|below| below.starts_with(DATA)) {
        let is_open = matches!(*method, Method::GET | Method::POST | Method::OPTIONS);
        return is_open.then_some(UiRoute::Data);
    }
    let is_in = |path: &str, folder: &str| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let known = below.is_some_and(|below| OF_SERVER.iter().any(|(folder, _)| is_in(below, folder)))
        || OF_ROOT.iter().any(|(folder, _)| is_in(path, folder));
    let looks = matches!(*method, Method::GET | Method::HEAD);
    (known && looks).then_some(UiRoute::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_files_and_the_data_service_are_passed_on_in_their_exact_spelling() {
        let kind = |method: Method, path: &str| classify_ui(&method, "/bi", path);
        for path in [
            "/bi/cdn/scripts/designer/ej1.web.all.min.js",
            "/bi/webdesignerservice/themes/ej1.web.all.min.css",
            "/bi/designer/localization/designerlocalization.js",
            "/bi/Content/bootstrap.css",
            "/bi/theme/x.css",
            "/bi/user-interface/fonts",
            "/ums/theme/styles/application",
            "/ums/user-interface/fonts",
            "/bi/health-check",
        ] {
            assert_eq!(kind(Method::GET, path), Some(UiRoute::File), "{path}");
            assert_eq!(kind(Method::HEAD, path), Some(UiRoute::File), "{path}");
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                assert_eq!(kind(method, path), None, "{path}");
            }
        }
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let path = "/bi/designer/v1.0/design/loadwidgetdata";
            assert_eq!(kind(method, path), Some(UiRoute::Data));
        }
        assert_eq!(kind(Method::PUT, "/bi/designer/v1.0/design/loadwidgetdata"), None);
        for path in [
            "/bi/api/site/site1/v5.0/users",
            "/BI/API/site/site1/v5.0/users",
            "/api/token",
            "/bi/jobs",
            "/bi/jobs/x",
            "/bi/designer/helper",
            "/bi/designer/v1.0",
            "/bi/designer/v2.0/x",
            "/etlservice/",
            "/aiservice",
            "/bi/site/site1/",
            "/bi/en-us/site/site1/",
            "/",
            "/ums",
            "/ums/theme",
            "/bi/cdnx/y",
            "/bi/CDN/x",
            "/cdn/x",
            "/bi/cdn/%2e%2e/api/x",
            "/bi/cdn/..%2fapi",
            "/bi/cdn;/x",
            "/bi/cdn/a%20b",
            "/bi",
            "/bi/",
        ] {
            assert_eq!(kind(Method::GET, path), None, "{path}");
        }
        assert_eq!(classify_ui(&Method::GET, "", "/cdn/x"), Some(UiRoute::File), "at the root");
        let by = |source| OF_SERVER.iter().chain(&OF_ROOT).filter(|row| row.1 == source).count();
        assert_eq!((by(Browser), by(Sdk), by(Ingress)), (5, 3, 1), "each path has its source");
    }
}
