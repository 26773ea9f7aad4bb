//! Where questions go: to the command that waits, or to nobody.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::{control::Question, secret::Secret};

/// A question on its way to a person, with where the answer goes.
pub(super) type Asked = (Question, oneshot::Sender<Option<Secret>>);

/// The place of one remote where a person may sit.
#[derive(Debug, Default)]
pub(super) struct Desk(Mutex<Option<mpsc::Sender<Asked>>>);

impl Desk {
    /// Seats a person; the receiver brings the questions until it is dropped.
    pub(super) fn sit(&self) -> mpsc::Receiver<Asked> {
        let (sender, receiver) = mpsc::channel(1);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Whether somebody could answer now.
    pub(super) fn is_attended(&self) -> bool {
        let person = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        person.as_ref().is_some_and(|person| !person.is_closed())
    }

    /// Asks; `None` if nobody is there, or declines, or leaves.
    pub(super) async fn ask(&self, question: Question) -> Option<Secret> {
        let person = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (answer, answered) = oneshot::channel();
        person.send((question, answer)).await.ok()?;
        answered.await.ok()?
    }
}
