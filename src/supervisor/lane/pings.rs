//! The pings of a lane that are under way.
//!
//! They are no tasks, and in none of the collections that wake whoever polls them once more: from
//! one ping of an idle session to the next everything happens on one thread of the runtime, which
//! wakes another one as soon as two tasks can run, or one task has run three others.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use super::super::{link::Later, path::Report};

/// A ping: what it finds, or nothing if the session ended before.
type Ping = Later<'static, Option<Report>>;

/// Some pings, rarely more than two.
#[derive(Default)]
pub(super) struct Pings(Vec<Ping>);

impl Pings {
    /// Takes care of `ping` from the next [`next`](Self::next) on.
    pub(super) fn push(&mut self, ping: Ping) {
        self.0.push(ping);
    }

    /// Waits for the first one to end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Report> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Report>> {
        let mut polled = self.0.iter_mut().enumerate();
        let ended = polled.find_map(|(at, ping)| match ping.as_mut().poll(context) {
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

    fn ping(number: u64) -> (oneshot::Sender<News>, Ping) {
        let (sender, receiver) = oneshot::channel();
        let ping = receiver.map(move |news| Some((Number(number), news.ok()?)));
        (sender, Box::pin(ping))
    }

    #[tokio::test]
    async fn whichever_ends_first_is_told_first() {
        let mut pings = Pings::default();
        let (first, one) = ping(1);
        let (second, two) = ping(2);
        pings.push(one);
        pings.push(two);
        assert!(poll!(Box::pin(pings.next())).is_pending());
        second.send(News::Found).unwrap();
        assert_eq!(pings.next().await, Some((Number(2), News::Found)));
        first.send(News::Pong { rtt: Duration::ZERO }).unwrap();
        let pong = News::Pong { rtt: Duration::ZERO };
        assert_eq!(pings.next().await, Some((Number(1), pong)));
        assert!(poll!(Box::pin(pings.next())).is_pending(), "nothing is under way");
    }

    #[tokio::test]
    async fn one_whose_session_ended_says_nothing() {
        let mut pings = Pings::default();
        let (gone, one) = ping(1);
        pings.push(one);
        drop(gone);
        assert_eq!(pings.next().await, None);
        assert!(poll!(Box::pin(pings.next())).is_pending());
    }
}
