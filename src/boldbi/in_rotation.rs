//! The hint on a failed exchange of a tenant whose secret has a rotation that has begun and not
//! ended: whether Bold BI takes the secret in its file is unknown then.

use std::borrow::Cow;

use super::embed_faults;
use super::fault::hint;
use crate::token::{ExchangeError, ExchangeErrorKind};

/// The remedy for `error`. `command` ends the rotation of the tenant's secret, if there is one.
pub fn hint_in_rotation(error: &ExchangeError, command: Option<&str>) -> Cow<'static, str> {
    match command {
        Some(command) if may_be_by_secret(&error.kind) => format!(
            "a rotation of the embed secret has begun and not ended, so Bold BI may take another one: \
             `{command}` ends it"
        )
        .into(),
        _ => hint(error).into(),
    }
}

/// Whether a failure may be caused by the secret.
pub fn may_be_by_secret(kind: &ExchangeErrorKind) -> bool {
    match kind {
        ExchangeErrorKind::EmbedRefused { status, fault, .. } => {
            embed_faults::may_be_by_secret(*status, fault)
        }
        other => other.is_about_secret(),
    }
}
