//! The further forwards: each `-L` is opened and each `-R` asked for once, and given back.

use serde_json::{Value, json};

use super::report::{Kind, Line, Step, Verdict};
use crate::{
    cli::output::Spinner,
    config::{Destination, Forward, Listen, Remote},
    problem::{Class, Problem},
    ssh::{Forwards, ListenFailure, OpenFailure, Session},
};

/// What came of one forward.
struct Tried {
    /// As it is typed: `-L …`.
    spec: String,
    verdict: Verdict,
    text: &'static str,
}

/// Tries what is wanted beside the gateway's forward; `None` if nothing is. The problem is there
/// where one that cannot be made is to be a failure (`ExitOnForwardFailure`).
pub(super) async fn try_out(
    session: &Session,
    definition: &Remote,
    configured: &Forwards,
    is_saved: bool,
    spinner: &Spinner,
) -> Option<(Step, Option<Problem>)> {
    let companion = definition.companion();
    let local = definition.forwards.iter().chain(&companion).chain(&configured.local);
    let remote = definition.remote_forwards.iter().chain(&configured.remote);
    let (local, remote): (Vec<_>, Vec<_>) = (local.collect(), remote.collect());
    if local.is_empty() && remote.is_empty() {
        return None;
    }
    spinner.stage("trying the further forwards");
    let trying = local.into_iter().map(|forward| try_local(session, forward));
    let mut tried = futures_util::future::join_all(trying).await;
    // A session has one listener at a time.
    for forward in remote {
        tried.push(try_remote(session, forward, is_saved).await);
    }
    Some(told(&tried, configured.all_or_nothing))
}

fn told(tried: &[Tried], all_or_nothing: bool) -> (Step, Option<Problem>) {
    let failed = tried.iter().filter(|it| it.verdict == Verdict::Failed).count();
    let text = match (tried.len(), failed) {
        (1, 0) => "one can be made".to_owned(),
        (all, 0) => format!("all {all} can be made"),
        (all, failed) => format!("{failed} of {all} cannot be made"),
    };
    let step = if failed == 0 {
        Step::ok(Kind::Forwards, None, text.clone())
    } else {
        Step::failed(Kind::Forwards, None, text.clone())
    };
    let detail: Vec<Value> = tried.iter().map(Tried::json).collect();
    let mut step = step.with("forwards", detail);
    step.lines = tried.iter().map(Tried::line).collect();
    let problem = (failed > 0 && all_or_nothing).then(|| {
        Problem::new(Class::ForwardRefused, format!("of the further forwards {text}"))
            .fix("take them out, or set ExitOnForwardFailure no: the rest works without them")
    });
    (step, problem)
}

impl Tried {
    fn json(&self) -> Value {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::NotReached => "not_reached",
        };
        json!({"spec": self.spec, "verdict": verdict, "text": self.text})
    }

    fn line(&self) -> Line {
        Line { verdict: Some(self.verdict), text: format!("{}: {}", self.spec, self.text) }
    }
}

async fn try_local(session: &Session, forward: &Forward) -> Tried {
    let (verdict, text) = match open(session, &forward.to).await {
        Ok(()) => (Verdict::Ok, "answers"),
        // The forward itself works: what it leads to may come later.
        Err(OpenFailure::Refused(_)) => (Verdict::Ok, "allowed; nothing answers there now"),
        Err(OpenFailure::Prohibited) => (Verdict::Failed, "the server's policy forbids it"),
        Err(OpenFailure::Silent) => (Verdict::Failed, "the server does not answer"),
        Err(OpenFailure::SessionLost) => (Verdict::NotReached, "the connection broke"),
    };
    Tried { spec: format!("-L {forward}"), verdict, text }
}

/// Opens a stream there, and closes it.
async fn open(session: &Session, to: &Destination) -> Result<(), OpenFailure> {
    match to {
        Destination::Port { host, port } => session.open(host, *port).await.map(drop),
        Destination::Socket(path) => session.open_socket(path).await.map(drop),
    }
}

async fn try_remote(session: &Session, forward: &Forward, is_saved: bool) -> Tried {
    let (verdict, text) = match session.listen(&forward.listen).await {
        Ok(listening) => {
            session.unlisten(&listening.at).await;
            (Verdict::Ok, "the server listens there; given back")
        }
        Err(ListenFailure::Refused) => match (is_taken(session, &forward.listen).await, is_saved) {
            (true, true) => (Verdict::NotReached, "taken: by the running tunnel, if it is up"),
            (true, false) => (Verdict::Failed, "taken over there by another program"),
            (false, _) => (Verdict::Failed, "the server refuses to listen there"),
        },
        Err(ListenFailure::Silent) => (Verdict::Failed, "the server does not answer"),
        Err(ListenFailure::SessionLost) => (Verdict::NotReached, "the connection broke"),
    };
    Tried { spec: format!("-R {forward}"), verdict, text }
}

/// Whether somebody answers where the server refused to listen.
async fn is_taken(session: &Session, at: &Listen) -> bool {
    match at.seen_from_there() {
        Some(to) => open(session, &to).await.is_ok(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_cannot_be_made_is_its_own_failure_unless_all_are_wanted() {
        let tried = |verdict| Tried { spec: "-L 1:h:2".to_owned(), verdict, text: "so" };
        let some = [tried(Verdict::Ok), tried(Verdict::Failed)];
        let (step, problem) = told(&some, false);
        assert_eq!((step.verdict, step.text.as_str()), (Verdict::Failed, "1 of 2 cannot be made"));
        assert!(problem.is_none());
        assert_eq!(told(&some, true).1.unwrap().class, Class::ForwardRefused);
        let (step, problem) = told(&some[..1], true);
        assert_eq!((step.verdict, problem), (Verdict::Ok, None));
        assert_eq!(step.lines[0].text, "-L 1:h:2: so");
    }
}
