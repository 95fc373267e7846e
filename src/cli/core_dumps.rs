//! Core files: a process that crashes would leave its memory behind, with secrets, tokens and
//! private keys in it.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Sees to it that this process leaves no core file. The limit alone does not bind a program that
/// takes core files through a pipe, and a process that is not dumpable cannot be attached to by
/// another one of its user either.
pub(super) fn forbid() {
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if let Err(error) = limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
    {
        tracing::warn!(
            %error,
            hint = "set `LimitCORE=0` in the unit, or `ulimit -c 0`",
            "core files cannot be forbidden: a crash may leave secrets on the disk"
        );
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_process_that_forbids_core_files_has_no_limit_for_them_and_is_not_dumpable() {
        forbid();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
