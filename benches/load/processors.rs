//! Which processor works for whom, and what else the machine was doing.

use std::fs;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The gateway has one processor to itself; load and upstream share the others. With a single
/// processor all share it.
pub(crate) struct Processors {
    gateway: CpuSet,
    rest: CpuSet,
    pub(crate) count: usize,
}

impl Processors {
    pub(crate) fn divide() -> io::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut ours: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu)).collect();
        let count = ours.len();
        let last = ours.pop().ok_or_else(|| io::Error::other("there is no processor"))?;
        let mut gateway = CpuSet::new();
        gateway.set(last);
        let mut rest = CpuSet::new();
        if ours.is_empty() {
            ours.push(last);
        }
        for cpu in ours {
            rest.set(cpu);
        }
        sched_setaffinity(None, &rest)?;
        Ok(Self { gateway, rest, count })
    }

    /// Calls `spawn` in such a way that the process it starts runs on the gateway's processor.
    pub(crate) fn give_gateway<T>(&self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        sched_setaffinity(None, &self.gateway)?;
        let spawned = spawn();
        sched_setaffinity(None, &self.rest)?;
        spawned
    }
}

/// Nanoseconds for which the processors have been busy, with whatever it was.
pub(crate) fn busy() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let mut fields = stat.split_ascii_whitespace().skip(1).map_while(|f| f.parse::<u64>().ok());
    let (user, nice, system) = (fields.next(), fields.next(), fields.next());
    // Then follow the times idle and waiting for disks, then interrupts and the time that the host
    // took.
    let others: u64 = fields.skip(2).take(3).sum();
    let ticks = user.unwrap_or(0) + nice.unwrap_or(0) + system.unwrap_or(0) + others;
    Ok(ticks * NANOSECONDS_PER_TICK)
}

/// Nanoseconds that this process has spent on processors.
pub(crate) fn own() -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// `USER_HZ` is 100 for every program on Linux (proc(5)).
const NANOSECONDS_PER_TICK: u64 = 10_000_000;
