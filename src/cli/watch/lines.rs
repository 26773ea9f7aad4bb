//! Where there is no terminal: a status object or a few lines of text at each change.

use std::collections::BTreeMap;

use jiff::ZonedDateTime;
use serde_json::{Value, json};

use super::feed::{Feed, News};
use crate::{
    cli::{Context, output::Tone, remote::describe},
    supervisor,
};

/// Prints until nobody reads any more, or what is watched cannot be.
pub(super) async fn run(context: &Context, mut feed: Feed) -> anyhow::Result<()> {
    let mut shown = Shown::default();
    let abandoned = context.output.abandoned();
    tokio::pin!(abandoned);
    loop {
        let news = tokio::select! {
            news = feed.next() => news?,
            () = &mut abandoned => return Ok(()),
        };
        if !shown.show(context, news)? {
            return Ok(());
        }
    }
}

/// What was printed last.
#[derive(Default)]
struct Shown {
    remotes: BTreeMap<String, Value>,
    is_gone: bool,
    is_empty: bool,
}

impl Shown {
    /// Prints what has changed; false once nobody reads.
    fn show(&mut self, context: &Context, news: News) -> anyhow::Result<bool> {
        if std::mem::replace(&mut self.is_gone, !news.is_running) == news.is_running {
            context.output.note(if news.is_running {
                "openclaw: the supervisor is back"
            } else {
                "openclaw: no supervisor runs; waiting for one"
            });
        }
        let is_empty = news.watched.remotes.is_empty();
        if !std::mem::replace(&mut self.is_empty, is_empty) && is_empty {
            context
                .output
                .note("openclaw: no remotes; openclaw remote connect user@host makes one");
        }
        let is_json = context.output.is_json();
        for remote in self.changed(news.watched.remotes, is_json) {
            let is_read = if is_json {
                context.output.endless_line(&serde_json::to_string(&remote)?)
            } else {
                print_text(context, &remote)
            };
            if !is_read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The remotes that are not as they were printed, those that are no more among them. People are
    /// not told of numbers that move all the time.
    fn changed(&mut self, remotes: Vec<Value>, is_json: bool) -> Vec<Value> {
        let is_other = |last: &Value, remote: &Value| match is_json {
            true => supervisor::is_other(last, remote),
            false => essence(last) != essence(remote),
        };
        let mut changed = Vec::new();
        let mut printed = BTreeMap::new();
        for remote in remotes {
            let name = name_of(&remote);
            let last = match self.remotes.remove(&name) {
                // What did not change enough to be printed is compared with what was.
                Some(last) if !is_other(&last, &remote) => last,
                Some(_) | None => {
                    changed.push(remote.clone());
                    remote
                }
            };
            printed.insert(name, last);
        }
        changed.extend(std::mem::replace(&mut self.remotes, printed).values().map(removed));
        changed
    }
}

fn name_of(remote: &Value) -> String {
    remote.pointer("/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What a person wants to be told of at once.
fn essence(remote: &Value) -> Value {
    let fields = ["/phase", "/default", "/failure", "/gateway", "/reconnects", "/lastOutage"];
    let mut essence: Vec<Value> =
        fields.iter().map(|field| remote.pointer(field).cloned().unwrap_or_default()).collect();
    let forwards = remote.pointer("/forwards").and_then(Value::as_array);
    essence.extend(forwards.into_iter().flatten().map(|forward| {
        let field = |name: &str| forward.get(name).cloned().unwrap_or_default();
        json!([field("phase"), field("failure")])
    }));
    Value::Array(essence)
}

/// The last that is said of a remote that is no more.
fn removed(last: &Value) -> Value {
    let mut last = last.clone();
    if let Some(object) = last.as_object_mut() {
        object.insert("phase".to_owned(), json!("down"));
        object.insert("removed".to_owned(), json!(true));
    }
    last
}

fn print_text(context: &Context, remote: &Value) -> bool {
    let output = &context.output;
    let now = ZonedDateTime::now().strftime("%H:%M:%S").to_string();
    let lines = if remote.pointer("/removed").is_some() {
        vec![format!("{}: removed", name_of(remote))]
    } else {
        describe(context, remote)
    };
    let text = format!("{} {}", output.paint(Tone::Quiet, &now), lines.join("\n"));
    output.endless_line(&crate::cli::output::plain(&text, output.is_colored()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(phase: &str, bytes: u64) -> Value {
        let proof = json!({"kind": "gateway", "ageMs": bytes});
        json!({"name": "vps", "phase": phase, "bytesIn": bytes, "proof": proof})
    }

    #[test]
    fn a_script_is_told_of_every_change_and_a_person_of_those_that_matter() {
        let (mut script, mut person) = (Shown::default(), Shown::default());
        let mut told = |remote: Value| {
            let remotes = vec![remote];
            (script.changed(remotes.clone(), true).len(), person.changed(remotes, false).len())
        };
        assert_eq!(told(remote("live", 0)), (1, 1));
        assert_eq!(told(remote("live", 0)), (0, 0));
        assert_eq!(told(remote("live", 5)), (1, 0));
        assert_eq!(told(remote("suspect", 5)), (1, 1));
    }

    #[test]
    fn a_remote_that_is_removed_is_said_to_be_once() {
        let mut shown = Shown::default();
        shown.changed(vec![remote("live", 0)], true);
        let gone = shown.changed(Vec::new(), true);
        assert_eq!(gone[0]["phase"], "down");
        assert_eq!(gone[0]["removed"], true);
        assert!(shown.changed(Vec::new(), true).is_empty());
    }
}
