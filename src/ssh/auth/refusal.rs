//! What is said when nobody let us in. Pure.

use crate::{
    ssh::resolve::Hop,
    tunnel::{Cause, Failure},
};

/// What happened on the way.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// What the server refused, for people.
    pub(super) tried: Vec<String>,
    /// How many refusals the server has counted.
    pub(super) counted: usize,
    /// What could not be tried, and why.
    pub(super) notes: Vec<Note>,
    /// Methods that the server was content with.
    pub(super) passed: Vec<&'static str>,
    /// Keys that were not offered any more: the server would have ended the login.
    pub(super) unoffered: usize,
}

/// Why something could not be tried.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) failure: Failure,
    /// Whether the login would have gone on with it: the server was content with the key.
    pub(super) decisive: bool,
}

impl Story {
    /// Notes something that was left out.
    pub(super) fn aside(&mut self, failure: Failure) {
        self.note(failure, false);
    }

    /// Notes what kept the login from going on.
    pub(super) fn decisive(&mut self, failure: Failure) {
        self.note(failure, true);
    }

    /// Keys are looked through again where a server wants two; what is noted is noted once.
    fn note(&mut self, failure: Failure, decisive: bool) {
        if self.notes.iter().all(|note| note.failure.message != failure.message) {
            self.notes.push(Note { failure, decisive });
        }
    }

    /// What to say when the server wants `what` and nobody is there.
    pub(super) fn needs_person(&self, hop: &Hop, what: &str) -> Failure {
        let before = match self.tried.as_slice() {
            [] => String::new(),
            tried => format!("; refused before: {}", tried.join(", ")),
        };
        let message = format!(
            "{} {what}, and nobody is there to answer{before}{}",
            hop.place(),
            self.asides()
        );
        match self.notes.iter().find(|note| note.decisive) {
            Some(note) => Failure { message, ..note.failure.clone() },
            None => Failure::new(Cause::NeedsPerson, message).fix(on_a_terminal(hop)),
        }
    }

    /// What to say when nothing is left to try; `offered` is what the server would take.
    pub(super) fn refusal(&self, hop: &Hop, offered: &[String]) -> Failure {
        let decisive = self.notes.iter().find(|note| note.decisive);
        let telling = || self.notes.iter().find(|note| note.failure.cause != Cause::Authentication);
        if self.tried.is_empty()
            && self.passed.is_empty()
            && let Some(note) = decisive.or_else(telling)
        {
            let methods = format!("; {} offers {}", hop.place(), listed(offered));
            let message = format!("{}{methods}", note.failure.message);
            return Failure { message, ..note.failure.clone() };
        }
        let message = self.told(hop, offered);
        match decisive {
            Some(note) => Failure { message, ..note.failure.clone() },
            None if self.lacks_person(hop, offered) => {
                Failure::new(Cause::NeedsPerson, format!("{message}; nobody may be asked"))
                    .fix(on_a_terminal(hop))
            }
            None => Failure::new(Cause::Authentication, message).fix(self.fix(hop)),
        }
    }

    /// Whether the server is content with the keys and wants answers that nobody may be asked for.
    fn lacks_person(&self, hop: &Hop, offered: &[String]) -> bool {
        let has = |name: &str| offered.iter().any(|method| method == name);
        let asks = has("keyboard-interactive") || has("password");
        hop.batch && asks && (!self.passed.is_empty() || !has("publickey"))
    }

    /// What to say when the server ended the login itself because of `tried`.
    pub(super) fn thrown_out(&self, hop: &Hop) -> Failure {
        let rest = match self.unoffered {
            0 => String::new(),
            count => format!("; {count} more were not reached"),
        };
        Failure::new(
            Cause::Authentication,
            format!(
                "{} ended the login after too many keys; it refused {}{rest}{}",
                hop.place(),
                self.tried.join(", "),
                self.asides()
            ),
        )
        .fix(NAME_THE_KEY)
    }

    fn told(&self, hop: &Hop, offered: &[String]) -> String {
        let passed = match self.passed.as_slice() {
            [] => String::new(),
            passed => format!(" (it was content with {}, and wants more)", passed.join(", ")),
        };
        let tried = match self.tried.as_slice() {
            [] if self.notes.is_empty() => "; there was no key to try".to_owned(),
            [] => "; nothing could be tried".to_owned(),
            tried => format!("; refused: {}", tried.join(", ")),
        };
        let rest = match self.unoffered {
            0 => String::new(),
            count => format!("; {count} more keys were not offered, since it counts them"),
        };
        format!(
            "{} did not let {} in{passed}; it offers {}{tried}{rest}{}",
            hop.place(),
            hop.user,
            listed(offered),
            self.asides()
        )
    }

    fn asides(&self) -> String {
        self.notes.iter().map(|note| format!("; {}", note.failure.message)).collect()
    }

    fn fix(&self, hop: &Hop) -> String {
        if self.unoffered > 0 {
            return NAME_THE_KEY.to_owned();
        }
        let install = format!("ssh-copy-id -p {} {}@{}", hop.port, hop.user, hop.host);
        let noted = self.notes.iter().find_map(|note| note.failure.fix.clone());
        match noted {
            Some(fix) => format!("{fix}; or name another key: -i FILE"),
            None => format!(
                "name the right key with -i FILE or add it with ssh-add; to install one over \
                 there: {install}"
            ),
        }
    }
}

/// The advice against too many keys.
const NAME_THE_KEY: &str = "name the right key: -i FILE -o IdentitiesOnly=yes";

fn on_a_terminal(hop: &Hop) -> String {
    format!("openclaw remote connect {} on a terminal, or use a key", hop.label())
}

fn listed(methods: &[String]) -> String {
    if methods.is_empty() { "nothing".to_owned() } else { methods.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> Hop {
        Hop::example("box")
    }

    fn offers() -> Vec<String> {
        vec!["publickey".to_owned(), "password".to_owned()]
    }

    fn locked() -> Failure {
        Failure::new(Cause::NeedsPerson, "the key k is locked").fix("ssh-add k")
    }

    #[test]
    fn says_what_was_refused_and_what_is_offered() {
        let story = Story { tried: vec!["k1".into(), "k2".into()], ..Story::default() };
        let failure = story.refusal(&hop(), &offers());
        assert_eq!(failure.cause, Cause::Authentication);
        assert_eq!(
            failure.message,
            "box port 22 did not let me in; it offers publickey, password; refused: k1, k2"
        );
        assert!(failure.fix.unwrap().contains("ssh-copy-id -p 22 me@box"));
    }

    #[test]
    fn what_kept_the_login_from_going_on_is_the_cause() {
        let mut story = Story { tried: vec!["k1".into()], ..Story::default() };
        story.decisive(locked());
        let failure = story.refusal(&hop(), &offers());
        assert_eq!(
            (failure.cause, failure.fix.as_deref()),
            (Cause::NeedsPerson, Some("ssh-add k"))
        );
        assert!(failure.message.contains("refused: k1; the key k is locked"), "{failure}");
    }

    #[test]
    fn what_was_left_out_is_the_cause_only_if_nothing_was_tried() {
        let mut story = Story::default();
        story.aside(Failure::new(Cause::Authentication, "the certificate has expired"));
        story.aside(locked());
        let failure = story.refusal(&hop(), &offers());
        assert_eq!(failure.cause, Cause::NeedsPerson);
        assert_eq!(failure.message, "the key k is locked; box port 22 offers publickey, password");
        story.tried.push("k1".into());
        let failure = story.refusal(&hop(), &offers());
        assert_eq!(failure.cause, Cause::Authentication);
        assert!(failure.message.contains("expired") && failure.message.contains("is locked"));
    }

    #[test]
    fn a_server_that_wants_more_is_told_from_one_that_wants_nothing_of_it() {
        let story = Story { passed: vec!["publickey"], ..Story::default() };
        let failure = story.refusal(&hop(), &["keyboard-interactive".to_owned()]);
        assert!(failure.message.contains("content with publickey, and wants more"), "{failure}");
        let failure = Story::default().refusal(&hop(), &[]);
        assert!(failure.message.contains("it offers nothing; there was no key"), "{failure}");
    }

    #[test]
    fn a_question_to_nobody_does_not_hide_what_happened_before() {
        let mut story = Story { tried: vec!["k1".into()], ..Story::default() };
        let failure = story.needs_person(&hop(), "wants a password");
        assert_eq!(failure.cause, Cause::NeedsPerson);
        assert!(failure.message.ends_with("to answer; refused before: k1"), "{failure}");
        story.decisive(Failure::new(Cause::Agent, "the agent is locked").fix("ssh-add -X"));
        story.decisive(Failure::new(Cause::Agent, "the agent is locked"));
        let failure = story.needs_person(&hop(), "wants a password");
        assert_eq!((failure.cause, failure.fix.as_deref()), (Cause::Agent, Some("ssh-add -X")));
        assert_eq!(failure.message.matches("is locked").count(), 1, "{failure}");
    }

    #[test]
    fn a_second_factor_that_nobody_may_be_asked_for_needs_a_person() {
        let hop = Hop { batch: true, ..hop() };
        let asks = ["keyboard-interactive".to_owned()];
        let story = Story { passed: vec!["publickey"], ..Story::default() };
        let failure = story.refusal(&hop, &asks);
        assert_eq!(failure.cause, Cause::NeedsPerson, "{failure}");
        assert!(failure.fix.unwrap().contains("on a terminal"));
        assert_eq!(Story::default().refusal(&hop, &asks).cause, Cause::NeedsPerson);
        let wrong_key = Story { tried: vec!["k1".into()], ..Story::default() };
        assert_eq!(wrong_key.refusal(&hop, &offers()).cause, Cause::Authentication);
    }

    #[test]
    fn too_many_keys_bring_the_advice_to_name_one() {
        let story = Story { tried: vec!["k1".into()], unoffered: 14, ..Story::default() };
        for failure in [story.refusal(&hop(), &offers()), story.thrown_out(&hop())] {
            assert_eq!(failure.cause, Cause::Authentication);
            assert!(failure.message.contains("14 more"), "{failure}");
            assert_eq!(failure.fix.as_deref(), Some(NAME_THE_KEY));
        }
    }
}
