//! The routes of the data service of Bold BI, its designer, that embedded dashboards need, as data:
//! method, path below `/v1.0/`, class, source. All others are closed.

use http::Method;

use crate::policy::RouteClass::{self, Export, Read, Write};

/// Where a route is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The sample of domain masking, in Bold BI's repository blazor-server-sample (at abd1a9e).
    Sample,
    /// Requests of the embed SDK 14.2.4 in a browser.
    Recorded,
}

use Source::{Recorded, Sample};

/// Looking at dashboards is `read`, but reading what only editors need (drafts, data sources, names
/// of groups) goes with editing. Editing, importing and connectors are `write`.
pub(super) const DESIGNER: [(Method, &str, RouteClass, Source); 40] = [
    (Method::POST, "design/loadwidgetdata", Read, Recorded),
    (Method::POST, "design/getdashboardtheme", Read, Sample),
    (Method::POST, "design/getdashboardthemenames", Read, Sample),
    (Method::POST, "design/loaddashboard", Read, Sample),
    (Method::POST, "design/getlocalizationformat", Read, Sample),
    (Method::POST, "design/PostDesignerAction", Read, Sample),
    (Method::POST, "design/getdashboardresources", Read, Sample),
    (Method::POST, "design/previewfeatures", Read, Sample),
    (Method::POST, "design/checkdraft", Read, Sample),
    (Method::POST, "design/mapshape/WorldMap_Countries", Read, Sample),
    (Method::POST, "design/mapshape/USA_States", Read, Sample),
    (Method::POST, "design/mapshapetype/Country", Read, Sample),
    (Method::POST, "design/getcategories", Read, Sample),
    (Method::POST, "dashboard/get-shared-dashboards", Read, Sample),
    (Method::POST, "design/embedactivitylog", Read, Sample),
    (Method::POST, "design/ProcessCacheValidation", Read, Sample),
    (Method::POST, "design/dependency-settings/onpremise", Read, Sample),
    (Method::POST, "design/trackerrors", Read, Sample),
    (Method::POST, "custom-widget/widgetsetting", Read, Sample),
    (Method::POST, "design/checkDataCacheRequest", Read, Sample),
    (Method::POST, "design/scheduleDataCache", Read, Sample),
    (Method::POST, "configuration/export", Export, Sample),
    (Method::POST, "design/export/image", Export, Sample),
    (Method::POST, "design/export/pdf", Export, Sample),
    (Method::POST, "design/export/excel", Export, Sample),
    (Method::POST, "design/export/csv", Export, Sample),
    (Method::GET, "design/download/pdf", Export, Sample),
    (Method::GET, "design/download/image", Export, Sample),
    (Method::GET, "design/download/excel", Export, Sample),
    (Method::GET, "design/download/csv", Export, Sample),
    (Method::POST, "userfilter/usergroups", Write, Sample),
    (Method::POST, "design/notifypropertychange", Write, Sample),
    (Method::POST, "design/shareddatasources", Write, Sample),
    (Method::POST, "design/importdatasource", Write, Sample),
    (Method::POST, "design/importdatasources", Write, Sample),
    (Method::POST, "design/savetoserver", Write, Sample),
    (Method::POST, "design/sampledatasource", Write, Sample),
    (Method::POST, "design/loaddraft", Write, Sample),
    (Method::POST, "datasource/load-webds-connector", Write, Sample),
    (Method::POST, "datasource/load-custom-connector", Write, Sample),
];

/// The class of a route of masked mode, by its path below the tenant's; `None` for every other
/// route. Letters may have any case, as for Bold BI, and one slash may stand at the end. Nothing
/// else varies: no encoding and no parameters.
pub(super) fn classify_masked(method: &Method, route: &str) -> Option<RouteClass> {
    let (version, name) = route.strip_prefix('/')?.split_once('/')?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let known = DESIGNER.iter().filter(|_| version.eq_ignore_ascii_case(VERSION));
    let mut known = known.filter(|(_, known, ..)| known.eq_ignore_ascii_case(name));
    known.find(|(known, ..)| known == method).map(|(_, _, class, _)| *class)
}

const VERSION: &str = "v1.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_of_masked_mode_has_its_class_and_all_others_are_closed() {
        for (method, name, class, _) in &DESIGNER {
            for route in [
                format!("/v1.0/{name}"),
                format!("/v1.0/{name}/"),
                format!("/V1.0/{name}").to_uppercase(),
            ] {
                assert_eq!(classify_masked(method, &route), Some(*class), "{method} {route}");
            }
            for route in [
                format!("/{name}"),
                format!("/v2.0/{name}"),
                format!("/v1.0/{name}//"),
                format!("/v1.0/{name}/x"),
                format!("/v1.0/x/{name}"),
                format!("/v1.0/{name};x"),
                format!("/v1.0/%{:02X}{}", name.as_bytes()[0], &name[1..]),
                format!("/v1.0/{name}%20"),
            ] {
                assert_eq!(classify_masked(method, &route), None, "{method} {route}");
            }
            for other in crate::request::METHODS.iter().filter(|other| *other != method) {
                assert_eq!(
                    classify_masked(other, &format!("/v1.0/{name}/")),
                    None,
                    "{other} {name}"
                );
            }
        }
    }

    #[test]
    fn exports_and_downloads_export_and_saving_importing_and_connectors_write() {
        for (_, name, class, _) in &DESIGNER {
            let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
            if has(&["export", "download/"]) {
                assert_eq!(*class, Export, "{name}");
            } else if has(&["save", "import", "connector"]) {
                assert_eq!(*class, Write, "{name}");
            }
        }
        let by = |source| DESIGNER.iter().filter(|row| row.3 == source).count();
        assert_eq!((by(Sample), by(Recorded)), (39, 1), "each source as a whole");
    }
}
