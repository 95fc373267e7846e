//! The log line of a failure that may be caused by the secret: its hint depends on whether a
//! rotation of the secret has begun by then.

use super::Record;
use crate::boldbi::hint_in_rotation;
use crate::refusal::Refusal;
use crate::telemetry::{LogLimiter, Telemetry};
use crate::token::NoToken;

impl Record {
    /// Logs `error` once its hint is made, if a line is due. The request goes on meanwhile.
    pub(super) fn warn_of_secret(
        &self,
        log_limiter: &LogLimiter,
        code: &'static str,
        error: &NoToken,
        telemetry: &Telemetry,
    ) {
        let refusal = Refusal::Exchange(error.clone());
        let reason = self.reason();
        let Some(repeated) = log_limiter.allow_reason(code, reason) else {
            self.debug_repeated(code, &refusal);
            return;
        };
        let (id, tenant) = (self.id.as_str().to_owned(), self.tenant().cloned());
        let server = self.granted.as_ref().map(|granted| granted.permit.tenant().server.origin());
        let error = error.clone();
        let failing = error.cause.tenant.clone();
        telemetry.unfinished_rotations.tell(failing.as_str(), move |command| {
            let hint = hint_in_rotation(&error.cause, command.as_deref());
            tracing::warn!(
                boldgate.refusal = code,
                boldgate.reason = reason,
                boldgate.tenant = tenant.as_ref().map(tracing::field::display),
                server.address = server,
                request.id = id,
                repeated = (repeated > 0).then_some(repeated),
                hint = &*hint,
                "{refusal}"
            );
        });
    }
}
