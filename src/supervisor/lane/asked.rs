//! What a lane has asked its sessions and gateways: the pings and proofs that are under way.
//!
//! They are no tasks, and in none of the collections that wake whoever polls them once more: from
//! one ping of an idle session to the next everything happens on one thread of the runtime, which
//! wakes another one as soon as two tasks can run, or one task has run three others.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use super::super::{link::Later, path::Report};

/// A ping or a proof: what it finds, or nothing if something else says the rest.
type Question = Later<'static, Option<Report>>;

/// Some questions, rarely more than two.
#[derive(Default)]
pub(super) struct Asked(Vec<Question>);

impl Asked {
    /// Takes care of `question` from the next [`next`](Self::next) on.
    pub(super) fn push(&mut self, question: Question) {
        self.0.push(question);
    }

    /// Waits for the first one to end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Report> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Report>> {
        let mut polled = self.0.iter_mut().enumerate();
        let ended = polled.find_map(|(at, question)| match question.as_mut().poll(context) {
            Poll::Ready(report) => Some((at, report)),
            Poll::Pending => None,
        });
        let Some((at, report)) = ended else { return Poll::Pending };
        drop(self.0.swap_remove(at));
        Poll::Ready(report)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt, poll};
    use tokio::sync::oneshot;

    use super::*;
    use crate::tunnel::{News, Number};

    fn ping(number: u64) -> (oneshot::Sender<News>, Question) {
        let (sender, receiver) = oneshot::channel();
        let ping = receiver.map(move |news| Some((Number(number), news.ok()?)));
        (sender, Box::pin(ping))
    }

    #[tokio::test]
    async fn whichever_ends_first_is_told_first() {
        let mut asked = Asked::default();
        let (first, one) = ping(1);
        let (second, two) = ping(2);
        asked.push(one);
        asked.push(two);
        assert!(poll!(Box::pin(asked.next())).is_pending());
        second.send(News::Found).unwrap();
        assert_eq!(asked.next().await, Some((Number(2), News::Found)));
        first.send(News::Pong { rtt: Duration::ZERO }).unwrap();
        let pong = News::Pong { rtt: Duration::ZERO };
        assert_eq!(asked.next().await, Some((Number(1), pong)));
        assert!(poll!(Box::pin(asked.next())).is_pending(), "nothing is under way");
    }

    #[tokio::test]
    async fn one_whose_session_ended_says_nothing() {
        let mut asked = Asked::default();
        let (gone, one) = ping(1);
        asked.push(one);
        drop(gone);
        assert_eq!(asked.next().await, None);
        assert!(poll!(Box::pin(asked.next())).is_pending());
    }
}
