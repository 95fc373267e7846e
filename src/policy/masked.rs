//! Why a request below the paths of masked mode is refused.

use crate::telemetry::Reason;

/// The fault of a request below a tenant's paths of masked mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskedFault {
    /// The tenant is without masked mode.
    #[error("nothing below `/masked/` is forwarded, and the tenant has no `embed.masked: true`")]
    Off,
    /// It is not a route that embedded dashboards need.
    #[error("masked mode has no such route, or not with this method")]
    Route,
    /// The route edits dashboards.
    #[error("the route is for editing dashboards, and `embed.modes` does not list `design`")]
    Design,
}

impl MaskedFault {
    /// The word for it in logs and metrics.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Off => Reason::MaskedOff,
            Self::Route => Reason::MaskedRoute,
            Self::Design => Reason::MaskedDesign,
        }
    }
}
