//! Who answers scrapes of the metrics: at the address that was asked for last, kept for the next
//! supervisor if that was wanted.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    lock::locked,
    metrics::{Exporter, Reading, exposition},
    server::Supervisor,
};
use crate::{
    config::Remotes,
    problem::{Class, Problem},
};

/// So often for the port of the last supervisor.
const RESUME_LOOKS: usize = 20;
/// Between two of them.
const RESUME_PAUSE: Duration = Duration::from_millis(250);

impl Supervisor {
    /// Answers scrapes at `address` from now on, or nowhere; the next supervisor as well if `keep`.
    pub(super) async fn answer_scrapes(
        self: &Arc<Self>,
        address: Option<SocketAddr>,
        keep: bool,
    ) -> Result<(), Problem> {
        let _changing = self.change().await?;
        self.turn_scrapes(address).await?;
        if keep {
            self.save(|remotes| {
                remotes.metrics = address;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Moves to `address`, or nowhere. Whoever calls it has the right to change things.
    async fn turn_scrapes(self: &Arc<Self>, address: Option<SocketAddr>) -> Result<(), Problem> {
        let present = locked(&self.exporter).as_ref().map(|exporter| exporter.address);
        if present == address {
            return Ok(());
        }
        // Two addresses may share the port, so the old one goes first, and comes back if the new
        // one cannot be had.
        self.end_scrapes().await;
        let Some(address) = address else {
            info!("metrics are not answered any more");
            return Ok(());
        };
        match self.exporter(address).await {
            Ok(next) => *locked(&self.exporter) = Some(next),
            Err(problem) => {
                if let Some(present) = present {
                    *locked(&self.exporter) = self.exporter(present).await.ok();
                }
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Does as the last supervisor was told to, unless somebody says otherwise meanwhile. A
    /// predecessor may hold the port for a moment.
    pub(super) async fn resume_scrapes(self: &Arc<Self>) {
        for looks in 1..=RESUME_LOOKS {
            match self.try_to_resume_scrapes().await {
                Ok(()) => return,
                Err(problem) if problem.class != Class::PortInUse || looks == RESUME_LOOKS => {
                    return warn!(%problem, "the metrics are not answered");
                }
                Err(_) => sleep(RESUME_PAUSE).await,
            }
        }
    }

    async fn try_to_resume_scrapes(self: &Arc<Self>) -> Result<(), Problem> {
        let _changing = self.change().await?;
        // The file is broken for others as well, who say it to a person.
        let saved = Remotes::load(&self.paths).unwrap_or_default();
        match saved.metrics {
            Some(address) if locked(&self.exporter).is_none() => {
                self.turn_scrapes(Some(address)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Answers no more; the port is free when this returns.
    pub(super) async fn end_scrapes(&self) {
        let exporter = locked(&self.exporter).take();
        if let Some(exporter) = exporter {
            exporter.close().await;
        }
    }

    async fn exporter(self: &Arc<Self>, address: SocketAddr) -> Result<Exporter, Problem> {
        // The exporter is the supervisor's, and must not keep it alive.
        let supervisor = Arc::downgrade(self);
        let text = move || supervisor.upgrade().and_then(|supervisor| supervisor.metrics());
        Exporter::start(address, Arc::new(text)).await
    }

    /// The text of the metrics now.
    pub(super) fn metrics(&self) -> Option<String> {
        let saved = Remotes::load(&self.paths).unwrap_or_default();
        let (running, unstarted) = (locked(&self.remotes), locked(&self.unstarted));
        let mut readings: Vec<Reading> = running.values().map(|remote| remote.reading()).collect();
        let resting = saved.remotes.keys().filter(|name| !running.contains_key(*name));
        readings.extend(resting.map(|name| Reading::resting(name, unstarted.phase(name))));
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        exposition(&readings, started.as_secs_f64()).ok()
    }
}
