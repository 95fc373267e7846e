//! Masked mode: the few headers by which a page tells what it shows. All others stay behind.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::{EmbedFault, Malformation};
use crate::tenant::{EmbedMode, EmbedSettings};

/// The headers of a page that go on. (Bold BI: sample of domain masking, blazor-server-sample.)
static FROM_PAGE: [HeaderName; 4] = [
    HeaderName::from_static("clientid"),
    HeaderName::from_static("dashboardpath"),
    MODE,
    HeaderName::from_static("localesettings"),
];
const MODE: HeaderName = HeaderName::from_static("mode");

/// The headers of a page that go on, in their order.
pub(crate) fn from_page(
    headers: &HeaderMap,
) -> impl Iterator<Item = (&'static HeaderName, &HeaderValue)> {
    FROM_PAGE.iter().filter_map(|name| Some((name, headers.get(name)?)))
}

/// Checks the headers of a page that go on.
///
/// # Errors
/// When one of them occurs twice, or asks for a mode that is not configured.
pub(crate) fn check_page(headers: &HeaderMap, settings: &EmbedSettings) -> Result<(), EmbedFault> {
    for name in &FROM_PAGE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Malformation::HeaderTwice(name.as_str()).into());
        }
    }
    // Other words than those of the modes are Bold BI's own affair.
    let asked = headers.get(MODE).map(|mode| String::from_utf8_lossy(mode.as_bytes()));
    let asked = asked.and_then(|mode| EmbedMode::parse(&mode.trim().to_ascii_lowercase()));
    match asked {
        Some(mode) if !settings.modes.contains(&mode) => Err(EmbedFault::Mode),
        _ => Ok(()),
    }
}
