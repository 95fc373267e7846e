//! Classes of routes, from harmless to dangerous.

use http::Method;
use strum::{IntoStaticStr, VariantArray};

/// The effect of a route, from harmless to dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum RouteClass {
    /// It shows data.
    Read,
    /// It exports data in bulk.
    Export,
    /// It changes data.
    Write,
    /// It changes users, groups, permissions or settings.
    Admin,
    /// It shows, makes or rotates secrets and tokens. Forbidden unless a permission names it.
    Credentials,
    /// The gateway itself answers, and no server gets the request. It has no place in the order:
    /// no route is raised to it or lowered from it. Forbidden unless a permission names it.
    Embed,
}

impl RouteClass {
    /// All of them, from harmless to dangerous.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word for it in configuration and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A set of route classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouteClasses(u8);

impl RouteClasses {
    /// The classes that need not be named: every class but [`RouteClass::Credentials`] and
    /// [`RouteClass::Embed`].
    pub const OPEN_BY_DEFAULT: Self =
        Self(Self::ALL.0 & !(1 << RouteClass::Credentials as u8) & !(1 << RouteClass::Embed as u8));

    /// Every class.
    pub const ALL: Self = Self((1 << RouteClass::VARIANTS.len()) - 1);

    /// Whether `class` is one of them.
    pub fn contains(self, class: RouteClass) -> bool {
        self.0 & (1 << class as u8) != 0
    }
}

impl FromIterator<RouteClass> for RouteClasses {
    fn from_iter<I: IntoIterator<Item = RouteClass>>(classes: I) -> Self {
        Self(classes.into_iter().fold(0, |set, class| set | 1 << class as u8))
    }
}

/// The kind of a path that is passed on to a server without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UiRoute {
    /// A static file.
    File,
    /// The data service, which authenticates clients itself.
    Data,
}

/// Facts about routes, each by its method and its path below the tenant's API base.
#[derive(Clone, Copy, Debug)]
pub struct Routes {
    /// The class of a route.
    pub classify: fn(&Method, &str) -> RouteClass,
    /// The class of a route of the whole installation, whose token is everybody's.
    pub classify_installation: fn(&Method, &str) -> RouteClass,
    /// Whether the last segment of a route is a name, which may have slashes.
    pub takes_name: fn(&Method, &str) -> bool,
    /// The class of a route of masked mode, by its path below the tenant's; `None` for a route that
    /// is never open. Routes of the class [`RouteClass::Write`] are for editing dashboards.
    pub masked: fn(&Method, &str) -> Option<RouteClass>,
    /// The kind of a whole path, on a server whose URL has this path, that listeners may pass on
    /// without authentication; `None` for every other path.
    pub ui: fn(&Method, &str, &str) -> Option<UiRoute>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_classes_but_credentials_and_embed_are_open_by_default() {
        for &class in RouteClass::ALL {
            assert!(RouteClasses::ALL.contains(class), "{class:?}");
            let harmless = !matches!(class, RouteClass::Credentials | RouteClass::Embed);
            assert_eq!(RouteClasses::OPEN_BY_DEFAULT.contains(class), harmless, "{class:?}");
        }
    }
}
