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
    metrics::{Exporter, Reading, exposition},
    server::{Supervisor, locked},
};
use crate::{
    config::Remotes,
    problem::{Class, Problem},
    tunnel::Phase,
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
        let present = locked(&self.exporter).as_ref().map(|exporter| exporter.address);
        if present != address {
            // Two addresses may share the port, so the old one goes first, and comes back if the new
            // one cannot be had.
            self.end_scrapes().await;
            if let Some(address) = address {
                match self.exporter(address).await {
                    Ok(next) => *locked(&self.exporter) = Some(next),
                    Err(problem) => {
                        if let Some(present) = present {
                            *locked(&self.exporter) = self.exporter(present).await.ok();
                        }
                        return Err(problem);
                    }
                }
            }
            info!(on = address.is_some(), "scrapes of the metrics");
        }
        if keep {
            self.save(|remotes| {
                remotes.metrics = address;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Does as the last supervisor was told to. A predecessor may hold the port for a moment.
    pub(super) async fn resume_scrapes(self: &Arc<Self>) {
        let Some(address) = Remotes::load(&self.paths).ok().and_then(|saved| saved.metrics) else {
            return;
        };
        for looks in 1..=RESUME_LOOKS {
            match self.answer_scrapes(Some(address), false).await {
                Ok(()) => return,
                Err(problem) if problem.class != Class::PortInUse || looks == RESUME_LOOKS => {
                    return warn!(%problem, "the metrics are not answered");
                }
                Err(_) => sleep(RESUME_PAUSE).await,
            }
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
    fn metrics(&self) -> Option<String> {
        let saved = Remotes::load(&self.paths).unwrap_or_default();
        let (running, unstarted) = (locked(&self.remotes), locked(&self.unstarted));
        let mut readings: Vec<Reading> = running.values().map(|remote| remote.reading()).collect();
        let resting = saved.remotes.keys().filter(|name| !running.contains_key(*name));
        readings.extend(resting.map(|name| {
            let phase =
                if unstarted.problem(name).is_some() { Phase::Blocked } else { Phase::Down };
            Reading::resting(name, phase)
        }));
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        exposition(&readings, started.as_secs_f64()).ok()
    }
}
