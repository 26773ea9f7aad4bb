//! What logind says of sleep (`PrepareForSleep` of org.freedesktop.login1(5)), over the system bus.
//!
//! A task connects, listens, and ends with the bus; nobody waits for it. Where there is no bus or no
//! logind the clocks tell of a wake all the same, so another try is made seldom.

use std::{
    future::pending,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tracing::debug;
use zbus::{Connection, MatchRule, Message, MessageStream, connection::Builder, message::Type};

/// How long the bus may take for each of its answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries; the second one waits for a look that is made anyway.
const AGAIN: Duration = Duration::from_secs(600);
/// Words that may wait; whoever sends more waits.
const WORDS: usize = 4;
const LOGIND: &str = "org.freedesktop.login1";
const BUS: &str = "org.freedesktop.DBus";

/// What it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The machine is about to sleep.
    Sleeps,
    /// It is awake again, or does not sleep after all.
    Wakes,
}

/// An ear for it.
pub(super) struct Logind {
    words: Option<mpsc::Receiver<Word>>,
    /// Ends with the bus, and with this.
    task: JoinSet<()>,
    again: Instant,
}

impl Logind {
    /// Begins to listen; must be called within the runtime.
    pub(super) fn listen() -> Self {
        let mut logind = Self { words: None, task: JoinSet::new(), again: Instant::now() };
        logind.look();
        logind
    }

    /// Tries again if the last try is over and was long ago.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if self.words.is_some() || now < self.again {
            return;
        }
        self.again = now + AGAIN;
        let (sender, words) = mpsc::channel(WORDS);
        self.words = Some(words);
        self.task.abort_all();
        self.task.spawn(async move {
            if let Err(error) = attend(&sender).await {
                debug!(%error, "nothing is heard of logind");
            }
        });
    }

    /// Waits for its next word. May be dropped and called again.
    pub(super) async fn word(&mut self) -> Word {
        if let Some(words) = &mut self.words {
            if let Some(word) = words.recv().await {
                return word;
            }
            self.words = None;
        }
        pending().await
    }
}

/// Listens until the bus is gone.
async fn attend(words: &mpsc::Sender<Word>) -> zbus::Result<()> {
    let late = |_| zbus::Error::Failure("the system bus does not answer".to_owned());
    let building = Builder::system().method_timeout(PATIENCE).build();
    let bus = timeout(PATIENCE, building).await.map_err(late)??;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(LOGIND)
        .interface("org.freedesktop.login1.Manager")
        .member("PrepareForSleep")
        .build()?;
    let queue = NonZeroUsize::new(WORDS);
    let mut signals = MessageStream::for_match_rule(rule, &bus, queue).await?;
    debug!("listening to logind");
    while let Some(signal) = signals.next().await {
        let signal = signal?;
        let Ok(sleeps) = signal.body().deserialize::<bool>() else { continue };
        if is_of_logind(&bus, &signal).await {
            let word = if sleeps { Word::Sleeps } else { Word::Wakes };
            if words.send(word).await.is_err() {
                break;
            }
        }
    }
    Err(zbus::Error::Failure("the system bus went away".to_owned()))
}

/// Whether it is the one who said so: a rule does not keep others from writing to us alone.
async fn is_of_logind(bus: &Connection, signal: &Message) -> bool {
    let path = "/org/freedesktop/DBus";
    let asked = bus.call_method(Some(BUS), path, Some(BUS), "GetNameOwner", &LOGIND).await;
    let Ok(answer) = asked else { return false };
    let body = answer.body();
    let Ok(owner) = body.deserialize::<&str>() else { return false };
    signal.header().sender().is_some_and(|sender| sender.as_str() == owner)
}
