//! Who answers scrapes of the metrics: at the address that was asked for last, kept for the next
//! supervisor if that was wanted.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use tracing::{info, warn};

use super::{
    metrics::{Exporter, Reading, exposition},
    server::{Supervisor, locked},
};
use crate::{config::Remotes, problem::Problem, tunnel::Phase};

impl Supervisor {
    /// Answers scrapes at `address` from now on, or nowhere; the next supervisor as well if `keep`.
    pub(super) async fn answer_scrapes(
        self: &Arc<Self>,
        address: Option<SocketAddr>,
        keep: bool,
    ) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        let present = locked(&self.exporter).as_ref().map(|exporter| exporter.address);
        if present != address {
            let next = match address {
                Some(address) => Some(self.exporter(address).await?),
                None => None,
            };
            *locked(&self.exporter) = next;
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

    /// Does as the last supervisor was told to; a port that is taken must not keep the remotes down.
    pub(super) async fn resume_scrapes(self: &Arc<Self>) {
        let saved = Remotes::load(&self.paths).ok().and_then(|saved| saved.metrics);
        if let Some(address) = saved
            && let Err(problem) = self.answer_scrapes(Some(address), false).await
        {
            warn!(%problem, "the metrics are not answered");
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
        let (running, failed) = (locked(&self.remotes), locked(&self.failed));
        let mut readings: Vec<Reading> = running.values().map(|remote| remote.reading()).collect();
        let resting = saved.remotes.keys().filter(|name| !running.contains_key(*name));
        readings.extend(resting.map(|name| {
            let phase = if failed.contains_key(name) { Phase::Blocked } else { Phase::Down };
            Reading::resting(name, phase)
        }));
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        exposition(&readings, started.as_secs_f64()).ok()
    }
}
