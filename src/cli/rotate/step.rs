//! The steps of a rotation, after each of which it may be killed.

/// A step that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum RotationStep {
    /// The journal has begun.
    Begun,
    /// The file can be replaced.
    Prepared,
    /// The journal says that Bold BI is asked.
    Asked,
    /// The new secret came.
    Generated,
    /// The new secret is on the disk.
    Written,
    /// The file has the new secret.
    Renamed,
    /// Bold BI gave a token for it.
    Proven,
}

impl RotationStep {
    /// Kills the process as a loss of power would: nothing of it runs any more.
    #[cfg(debug_assertions)]
    pub(super) fn kill(self) {
        use rustix::process::{Signal, getpid, kill_process};
        let killed = kill_process(getpid(), Signal::KILL);
        unreachable!("{self:?}: {killed:?}");
    }
}
