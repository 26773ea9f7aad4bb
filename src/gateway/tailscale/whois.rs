//! Whether the user whom Tailscale's headers name is the one whom its daemon knows at the address.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, time::timeout};

use super::{ANSWER_LIMIT, answers, ask, program};

/// Questions that may be under way at once.
const MOST_QUESTIONS: usize = 4;
/// How long an answer is believed.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How long nobody is asked again about an address that the daemon does not know.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// Addresses remembered.
const MOST_KNOWN: usize = 256;

/// Asks the daemon, a few at a time, and remembers for a minute.
pub(in crate::gateway) struct Whois {
    program: PathBuf,
    known: Mutex<HashMap<IpAddr, (Instant, Option<String>)>>,
    room: Arc<Semaphore>,
}

/// Why a name does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Unverified {
    /// The daemon does not answer, or knows nobody there.
    Unknown,
    /// It knows somebody else there.
    Other,
}

impl Default for Whois {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(MOST_QUESTIONS));
        Self { program: program(), known: Mutex::default(), room }
    }
}

impl Whois {
    /// Whether `login` is at `address`; waits for the daemon, five seconds at most.
    pub(in crate::gateway) async fn verify(
        &self,
        address: IpAddr,
        login: &str,
    ) -> Result<(), Unverified> {
        let known = match self.remembered(address) {
            Some(known) => known,
            None => {
                let asked = timeout(ANSWER_LIMIT, self.ask(address)).await.unwrap_or(None);
                self.remember(address, asked.clone());
                asked
            }
        };
        match known {
            None => Err(Unverified::Unknown),
            Some(known) if known.eq_ignore_ascii_case(login) => Ok(()),
            Some(_) => Err(Unverified::Other),
        }
    }

    /// Knows `login` at `address`, as if the daemon had said so.
    #[cfg(test)]
    pub(in crate::gateway) fn learn(&self, address: IpAddr, login: &str) {
        self.remember(address, Some(login.to_owned()));
    }

    async fn ask(&self, address: IpAddr) -> Option<String> {
        let _room = self.room.acquire().await.ok()?;
        let answer = ask(&self.program, &["whois", "--json", &address.to_string()]).await;
        match answer {
            Ok(answer) if answer.is_success => answers::login(&answer.out),
            Ok(answer) => {
                tracing::debug!(why = answer.err, "tailscale knows nobody at an address");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "tailscale cannot be asked who somebody is");
                None
            }
        }
    }

    fn remembered(&self, address: IpAddr) -> Option<Option<String>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, login) = known.get(&address)?;
        let limit = if login.is_some() { KNOWN_FOR } else { UNKNOWN_FOR };
        (at.elapsed() < limit).then(|| login.clone())
    }

    fn remember(&self, address: IpAddr, login: Option<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
        }
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(address, (Instant::now(), login));
    }
}
