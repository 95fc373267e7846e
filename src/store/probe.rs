//! The doctor's examination of the store, step by step.

use std::time::Duration;

use redis::RedisError;
use tokio::time::{Instant, timeout};

use super::condition::StoreEngine;
use super::connection::{ConnectFault, StoreConnection, master};
use super::names::ValueNames;
use super::settings::{StoreSettings, StoreTarget};

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
    /// Nothing came in time.
    #[error("it gave no reply within {0:?}")]
    Timeout(Duration),
}

impl StoreProbe {
    /// Connects, writes a value that ends by itself, and reads its remaining life.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn run(settings: &StoreSettings, deadline: Duration) -> Result<Self, ProbeFault> {
        timeout(deadline, Self::steps(settings)).await.unwrap_or(Err(ProbeFault::Timeout(deadline)))
    }

    async fn steps(settings: &StoreSettings) -> Result<Self, ProbeFault> {
        let master = match &settings.target {
            StoreTarget::Sentinel { .. } => {
                Some(master(settings).await.map_err(ProbeFault::Sentinel)?)
            }
            StoreTarget::Single(_) | StoreTarget::Cluster(_) => None,
        };
        let mut connection =
            StoreConnection::open(settings, master.as_ref()).await.map_err(ProbeFault::Connect)?;
        let names = ValueNames::of_actions(&settings.prefix);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(names.probe()).arg(1).arg("PX").arg(LIFE).ignore();
        pipeline.cmd("PTTL").arg(names.probe());
        let begun = Instant::now();
        let (life,) = connection.send::<(i64,)>(&pipeline).await.map_err(ProbeFault::Write)?;
        let took = begun.elapsed();
        if !(1..=LIFE).contains(&life) {
            return Err(ProbeFault::Life(life));
        }
        let engine = connection.engine().await.ok().flatten();
        Ok(Self { master: master.map(|node| node.to_string()), took, engine })
    }
}

const LIFE: i64 = 10_000;
