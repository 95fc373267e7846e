//! Trials of all commands that a gateway sends, on values of their own, which end by themselves.

use std::time::Duration;

use redis::Cmd;

use super::milliseconds;
use super::names::ValueNames;

/// Every command with its name. All are of the same part of a Cluster.
pub(super) fn commands(names: &ValueNames) -> Vec<(&'static str, Cmd)> {
    let (value, list, stream) = (names.probe(), names.probe_list(), names.probe_stream());
    let life = milliseconds(PROBE_LIFETIME);
    let command = |name: &'static str, first: &str| {
        let mut command = redis::cmd(name);
        command.arg(first);
        (name, command)
    };
    let mut all = vec![
        command("DEL", &list),
        command("SET", &value),
        command("GET", &value),
        command("PTTL", &value),
        command("EVAL", "return 1"),
        command("LPUSH", &list),
        command("LTRIM", &list),
        command("LREM", &list),
        command("LRANGE", &list),
        command("XADD", &stream),
        command("XREAD", "COUNT"),
        command("PEXPIRE", &list),
        command("PEXPIRE", &stream),
        command("DEL", &list),
    ];
    for (name, command) in &mut all {
        match *name {
            "SET" => command.arg(1).arg("PX").arg(life),
            "EVAL" => command.arg(1).arg(&value),
            "LPUSH" => command.arg(1),
            "LTRIM" | "LRANGE" | "LREM" => command.arg(0).arg(0),
            "XADD" => command.arg("MAXLEN").arg(1).arg("*").arg("a").arg(1),
            "XREAD" => command.arg(1).arg("STREAMS").arg(&stream).arg("0-0"),
            "PEXPIRE" => command.arg(life),
            "DEL" => command.arg(&stream),
            _ => command,
        };
    }
    all
}

/// All of them as one request.
pub(super) fn pipeline(names: &ValueNames) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for (_, command) in commands(names) {
        pipeline.add_command(command).ignore();
    }
    pipeline
}

/// The life of a value of a trial.
pub(super) const PROBE_LIFETIME: Duration = Duration::from_secs(10);
