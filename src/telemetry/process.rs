//! The metrics of the process itself, under the names that all Prometheus clients use. They are
//! read from `/proc` for each page; a system without it has none.

use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let Some(facts) = ProcessFacts::read() else { return Ok(()) };
        encoder
            .encode_descriptor(
                "process_cpu",
                "CPU time of the process, in user and in system mode.",
                Some(&Unit::Seconds),
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&facts.cpu.as_secs_f64(), None)?;
        let mut gauge = |name, help, unit: Option<&Unit>, value: f64| {
            encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
        };
        gauge(
            "process_resident_memory",
            "Memory of the process that is in RAM.",
            Some(&Unit::Bytes),
            facts.resident as f64,
        )?;
        gauge(
            "process_virtual_memory",
            "Address space of the process.",
            Some(&Unit::Bytes),
            facts.virtual_memory as f64,
        )?;
        gauge("process_threads", "Threads of the process.", None, facts.threads as f64)?;
        gauge(
            "process_start_time",
            "When the process started, as a Unix time.",
            Some(&Unit::Seconds),
            facts.started,
        )?;
        gauge("process_open_fds", "Open file descriptors.", None, facts.open_files as f64)?;
        let max = facts.max_files.map_or(f64::INFINITY, |max| max as f64);
        gauge("process_max_fds", "Most file descriptors that may be open.", None, max)
    }
}

struct ProcessFacts {
    cpu: Duration,
    resident: u64,
    virtual_memory: u64,
    threads: u64,
    /// In seconds of Unix time.
    started: f64,
    open_files: u64,
    /// `None` if there is no limit.
    max_files: Option<u64>,
}

impl ProcessFacts {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a time in hundredths of seconds is far below 2^52"
    )]
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the process is in parentheses and may hold any character.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // As `man 5 proc_pid_stat` numbers them; `state` is 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = clock_ticks_per_second();
        let cpu = field(14)? + field(15)?;
        let booted = fs::read_to_string("/proc/stat").ok()?;
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "))?;
        let started = field(22)? as f64 / ticks as f64;
        // One of them is the directory that is being read.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1;
        Some(Self {
            cpu: Duration::from_millis(cpu * 1000 / ticks),
            resident: field(24)? * page_size() as u64,
            virtual_memory: field(23)?,
            threads: field(20)?,
            started: booted.parse::<u64>().ok()? as f64 + started,
            open_files,
            max_files: getrlimit(Resource::Nofile).current,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_facts_of_this_process_are_plausible() {
        let before = ProcessFacts::read().unwrap();
        let opened: Vec<_> = (0..10).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = ProcessFacts::read().unwrap();
        assert!(after.open_files >= before.open_files + 5, "other tests may close some");
        drop(opened);
        assert!(after.max_files.is_none_or(|max| max >= after.open_files));
        assert!((100_000..after.virtual_memory).contains(&after.resident));
        assert!(after.threads >= 1 && after.cpu >= before.cpu);
        let age =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - after.started;
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
