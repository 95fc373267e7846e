//! Classes of routes, from harmless to dangerous.

use http::Method;

/// What kind of thing a route does, from harmless to dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteClass {
    /// Looks at things.
    Read,
    /// Takes data out in bulk.
    Export,
    /// Changes things.
    Write,
    /// Changes who may do what: users, groups, permissions, settings.
    Admin,
    /// Shows, makes or rotates secrets and tokens. Closed unless named.
    Credentials,
}

impl RouteClass {
    /// All of them, in the order of danger.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::Export, Self::Write, Self::Admin, Self::Credentials];

    /// The word for it in configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Export => "export",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Credentials => "credentials",
        }
    }
}

/// A set of route classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouteClasses(u8);

impl RouteClasses {
    /// Every class but [`RouteClass::Credentials`].
    pub const ALL_BUT_CREDENTIALS: Self = Self(0b0_1111);

    /// Every class.
    pub const ALL: Self = Self(0b1_1111);

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

/// Tells the class of a route: its method and its path below the tenant's API base.
pub type Classify = fn(&Method, &str) -> RouteClass;
