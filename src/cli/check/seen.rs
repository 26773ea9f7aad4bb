//! Sorts what a connection told by hops. Pure.

use std::{net::SocketAddr, time::Duration};

use super::login::Logins;
use crate::ssh::{Fact, Negotiated, Stage, Standing};

/// One thing that the connection told, and when: since the start, a person's time not counted.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What was told.
#[derive(Debug, Clone)]
pub(super) enum What {
    Stage(Stage),
    Fact(Fact),
}

/// What was told of one hop.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) begun: Option<Duration>,
    pub(super) ended: Duration,
    pub(super) addresses: Option<(Duration, Vec<SocketAddr>)>,
    pub(super) missed: Vec<(SocketAddr, String)>,
    pub(super) way: Option<(Duration, Way)>,
    pub(super) banner: Option<(String, Duration)>,
    pub(super) agreed: Option<(Duration, Negotiated)>,
    pub(super) checking: Option<Duration>,
    pub(super) host_key: Option<(Duration, String, String, Standing)>,
    pub(super) recorded: Option<String>,
    pub(super) authenticating: Option<Duration>,
    pub(super) logged_in: Option<(Duration, String)>,
    pub(super) logins: Logins,
}

/// How the bytes get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    Tcp(SocketAddr),
    Command,
    Through,
}

impl Seen {
    /// What was told of the hop called `number`, and whether nothing was told of a later one.
    pub(super) fn gather(number: usize, news: &[News], end: Duration) -> (Self, bool) {
        let begins = |news: &News| match &news.what {
            What::Fact(Fact::Hop(number)) => Some(*number),
            What::Fact(_) | What::Stage(_) => None,
        };
        let mut seen = Self { ended: end, ..Self::default() };
        let own = news.iter().skip_while(|news| begins(news) != Some(number));
        let mut is_last = true;
        for News { at, what } in own {
            match what {
                What::Fact(Fact::Hop(other)) if *other == number => seen.begun = Some(*at),
                What::Fact(Fact::Hop(_)) => {
                    (seen.ended, is_last) = (*at, false);
                    break;
                }
                What::Fact(fact) => seen.note(*at, fact),
                What::Stage(Stage::CheckingHostKey { .. }) => seen.checking = Some(*at),
                What::Stage(Stage::Authenticating { .. }) => {
                    seen.authenticating.get_or_insert(*at);
                }
                What::Stage(_) => {}
            }
        }
        let is_last = is_last && seen.begun.is_some();
        (seen, is_last)
    }

    fn note(&mut self, at: Duration, fact: &Fact) {
        match fact.clone() {
            Fact::Hop(_) => {}
            Fact::Addresses(addresses) => self.addresses = Some((at, addresses)),
            Fact::NotConnected { address, why } => self.missed.push((address, why)),
            Fact::Connected { address, .. } => self.way = Some((at, Way::Tcp(address))),
            Fact::Proxied { .. } => self.way = Some((at, Way::Command)),
            Fact::Through { .. } => self.way = Some((at, Way::Through)),
            Fact::Banner { text, after } => self.banner = Some((text, after)),
            Fact::Algorithms(agreed) => self.agreed = Some((at, agreed)),
            Fact::HostKey { algorithm, fingerprint, standing } => {
                self.host_key = Some((at, algorithm, fingerprint, standing));
            }
            Fact::HostKeyRecorded(path) => self.recorded = Some(path.display().to_string()),
            Fact::LoggedIn { method } => self.logged_in = Some((at, method)),
            Fact::Methods(_)
            | Fact::Agent { .. }
            | Fact::AgentFailed { .. }
            | Fact::Key { .. }
            | Fact::Method { .. } => self.logins.note(fact),
        }
    }
}
