//! Values that no gateway writes: a warning of them, and the repair of those of another type, which
//! no gateway could overwrite. A value of an unknown format stays.

use super::Inner;
use super::names::ValueNames;

impl Inner {
    /// Deletes those values of an identity that are of a type which no gateway writes.
    pub(super) async fn repair(&self, names: &ValueNames) {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(REPAIR_VALUES).arg(3);
        pipeline.arg(names.token()).arg(names.lease()).arg(names.refused()).ignore();
        self.run_repair(names, &pipeline).await;
    }

    /// The same for the stream of actions.
    pub(super) async fn repair_stream(&self, names: &ValueNames) {
        self.run_repair(names, &repair_stream(names)).await;
    }

    async fn run_repair(&self, names: &ValueNames, pipeline: &redis::Pipeline) {
        self.warn_of_value(None, "it is of another type, and is deleted");
        // Without a reply the store is away, which is said.
        let _ = self.link.request::<()>(names, pipeline).await;
    }

    /// Warns of a value that cannot be used.
    pub(super) fn warn_of_value(&self, tenant: Option<&str>, reason: &'static str) {
        let limiter = &self.link.metrics().log_limiter;
        if let Some(repeated) = limiter.allow_reason("store_value", Some(reason)) {
            tracing::warn!(
                store = %self.link.settings().target,
                boldgate.tenant = tenant,
                reason,
                repeated = (repeated > 0).then_some(repeated),
                hint = HINT,
                "a value in the token store is not used"
            );
        }
    }
}

/// Deletes a stream of another type.
pub(super) fn repair_stream(names: &ValueNames) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("EVAL").arg(REPAIR_STREAM).arg(1).arg(names.stream()).ignore();
    pipeline
}

const REPAIR_VALUES: &str = "\
    local function wrong(reply) return type(reply) == 'table' and reply.err \
        and string.find(reply.err, 'WRONGTYPE', 1, true) end \
    for i = 1, 2 do \
        if wrong(redis.pcall('GET', KEYS[i])) then redis.call('DEL', KEYS[i]) end \
    end \
    if wrong(redis.pcall('LRANGE', KEYS[3], 0, 0)) then redis.call('DEL', KEYS[3]) end \
    return 0";
const REPAIR_STREAM: &str = "\
    local reply = redis.pcall('XREAD', 'COUNT', 1, 'STREAMS', KEYS[1], '0-0') \
    if type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) then \
        redis.call('DEL', KEYS[1]) \
    end \
    return 0";
const HINT: &str = "nothing but boldgate may write below `token_store.prefix`: look at who may write to \
                    the store; requests are served all the same";
