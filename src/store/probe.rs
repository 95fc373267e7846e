//! The doctor's examination of the store, step by step.

use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisError;
use tokio::time::{Instant, timeout};

use super::cause::StoreCause;
use super::condition::StoreEngine;
use super::connection::{ConnectFault, StoreConnection, master};
use super::names::ValueNames;
use super::settings::{StoreSettings, StoreTarget};
use super::trials::{PROBE_LIFETIME, commands};

/// The findings about a store that works.
#[derive(Clone, Debug)]
pub struct StoreProbe {
    /// The master that sentinels name, if there are sentinels.
    pub master: Option<String>,
    /// The time of one small request.
    pub took: Duration,
    /// The program that it is, if it says so.
    pub engine: Option<StoreEngine>,
}

/// The step that failed, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFault {
    /// No sentinel names a master.
    #[error("no sentinel names a master: {0}")]
    Sentinel(#[source] ConnectFault),
    /// There is no connection, or the password is refused.
    #[error("there is no connection: {0}")]
    Connect(#[source] ConnectFault),
    /// It takes no writes.
    #[error("it takes no writes: {0}")]
    Write(#[source] RedisError),
    /// A written value does not end.
    #[error("a value does not end by itself: its remaining life is {0} ms")]
    Life(i64),
    /// The user has no right to these commands.
    #[error("the user has no right to {}", .0.join(", "))]
    Rights(Vec<String>),
    /// Nothing came in time.
    #[error("{step} did not end within {limit:?}")]
    Timeout {
        /// The step that was waited for.
        step: &'static str,
        /// How long.
        limit: Duration,
    },
}

impl StoreProbe {
    /// Connects, tries each command that the gateway sends on values that end by themselves, and
    /// reads the remaining life of one.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn run(settings: &StoreSettings, limit: Duration) -> Result<Self, ProbeFault> {
        let step = Mutex::new("the connection");
        let steps = Self::steps(settings, &step);
        match timeout(limit, steps).await {
            Ok(found) => found,
            Err(_) => Err(ProbeFault::Timeout { step: *step.lock(), limit }),
        }
    }

    async fn steps(
        settings: &StoreSettings,
        step: &Mutex<&'static str>,
    ) -> Result<Self, ProbeFault> {
        let master = match &settings.target {
            StoreTarget::Sentinel { .. } => {
                *step.lock() = "the question to the sentinels";
                Some(master(settings).await.map_err(ProbeFault::Sentinel)?)
            }
            StoreTarget::Single(_) | StoreTarget::Cluster(_) => None,
        };
        *step.lock() = match settings.tls {
            None => "the connection, with its first reply,",
            Some(_) => "the connection, with TLS and its first reply,",
        };
        let mut connection =
            StoreConnection::open(settings, master.as_ref()).await.map_err(ProbeFault::Connect)?;
        *step.lock() = "a request";
        let names = ValueNames::of_actions(&settings.prefix);
        let mut missing = Vec::new();
        for (name, command) in commands(&names) {
            let mut one = redis::pipe();
            one.add_command(command).ignore();
            if let Err(error) = connection.send::<()>(&one).await {
                if StoreCause::of(&error.to_string()) != StoreCause::Rights {
                    return Err(ProbeFault::Write(error));
                }
                let name = format!("`{}`", name.to_ascii_lowercase());
                if !missing.contains(&name) {
                    missing.push(name);
                }
            }
        }
        if !missing.is_empty() {
            return Err(ProbeFault::Rights(missing));
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("PTTL").arg(names.probe());
        let begun = Instant::now();
        let (life,) = connection.send::<(i64,)>(&pipeline).await.map_err(ProbeFault::Write)?;
        let took = begun.elapsed();
        if !(1..=i64::try_from(PROBE_LIFETIME.as_millis()).unwrap_or(i64::MAX)).contains(&life) {
            return Err(ProbeFault::Life(life));
        }
        let engine = connection.engine().await.ok().flatten();
        Ok(Self { master: master.map(|node| node.to_string()), took, engine })
    }
}
