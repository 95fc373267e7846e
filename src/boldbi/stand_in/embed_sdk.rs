//! A stand-in for the file of the embed SDK, at the path that it has at its vendor's. It has none
//! of the SDK's code.

use http::{Response, StatusCode};

use super::respond::{StandInBody, whole};

/// The file, whatever its version. (Bold BI: "Embedded SDK", `embedded-sdk/v14.2/boldbi-embed.js`.)
pub(super) fn file(path: &str) -> Option<Response<StandInBody>> {
    let version = path.strip_prefix("/embedded-sdk/")?.strip_suffix("/boldbi-embed.js")?;
    let is_version = !version.is_empty() && !version.contains('/');
    is_version.then(|| whole(StatusCode::OK, "text/javascript; charset=utf-8", FILE))
}

const FILE: &str = include_str!("embed_sdk.js");
