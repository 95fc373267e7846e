//! Core files are prevented: they would hold secrets, tokens and private keys.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Prevents core files of this process. The limit does not apply to a program that receives core
/// files through a pipe, so the process is also made not dumpable. Then other processes of its user
/// cannot attach to it either.
pub(super) fn forbid() {
    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if let Err(error) = limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
    {
        tracing::warn!(
            %error,
            hint = "set `LimitCORE=0` in the unit, or `ulimit -c 0`",
            "core files cannot be prevented: a crash may write secrets to the disk"
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
