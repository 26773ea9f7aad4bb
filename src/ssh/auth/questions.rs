//! What only a person can answer: keyboard-interactive (RFC 4256) and passwords (RFC 4252).
//!
//! No answer is kept, and none is sent twice: a one-time code would be spent, and a repetition of
//! the login asks again.

use russh::{
    MethodKind, MethodSet,
    client::{AuthResult, KeyboardInteractiveAuthResponse, Prompt},
};
use tokio::time::timeout;

use super::login::{ANSWER_TIMEOUT, Login, Verdict};
use crate::{
    ssh::ask::Question,
    tunnel::{Cause, Failure},
};

/// How many rounds of questions a server may ask.
const MOST_ROUNDS: u32 = 20;
/// How many questions a round may have.
const MOST_PROMPTS: usize = 16;

/// What the server said in rounds without a question, until one comes.
#[derive(Default)]
struct Said(Vec<String>);

impl Login<'_> {
    /// The questions of keyboard-interactive, anew if the answers were wrong and may be mended.
    pub(super) async fn questions(&mut self, mut offered: MethodSet) -> Result<Verdict, Failure> {
        for again in 0..self.context.hop.password_prompts {
            let (verdict, answered) = self.rounds(&offered, again > 0).await?;
            match verdict {
                Verdict::No(methods) => offered = methods,
                verdict @ (Verdict::In | Verdict::More(_)) => return Ok(verdict),
            }
            if !answered || !offered.contains(&MethodKind::KeyboardInteractive) {
                break;
            }
        }
        Ok(Verdict::No(offered))
    }

    /// Round after round until the server decides; also whether a person answered anything.
    async fn rounds(
        &mut self,
        offered: &MethodSet,
        again: bool,
    ) -> Result<(Verdict, bool), Failure> {
        self.story.tried.push("answers to its questions".to_owned());
        let user = self.context.hop.user.clone();
        let start = self.handle.authenticate_keyboard_interactive_start(user, None);
        let mut reply = timeout(ANSWER_TIMEOUT, start).await;
        let mut answered = false;
        let mut said = Said::default();
        for _ in 0..MOST_ROUNDS {
            let (name, instructions, prompts) = match self.answered(reply).await? {
                KeyboardInteractiveAuthResponse::Success => {
                    return Ok((self.verdict(AuthResult::Success).await?, answered));
                }
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    let result = AuthResult::Failure { remaining_methods, partial_success };
                    let verdict = self.verdict(result).await?;
                    if !answered && !partial_success {
                        // There was no question: nothing of ours was refused.
                        self.story.tried.pop();
                    }
                    return Ok((verdict, answered));
                }
                KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                    (name, instructions, prompts)
                }
            };
            if prompts.len() > MOST_PROMPTS {
                return Err(self.endless());
            }
            said.hear(&instructions);
            let Some(answers) = self.round(&name, prompts, &mut said).await else {
                // The library waits for the answers to this round: there is no other way on.
                self.story.tried.pop();
                return Err(match again {
                    true => self.refused(offered),
                    false => self.story.needs_person(self.context.hop, "asks questions"),
                });
            };
            answered |= !answers.is_empty();
            let respond = self.handle.authenticate_keyboard_interactive_respond(answers);
            reply = timeout(ANSWER_TIMEOUT, respond).await;
        }
        Err(self.endless())
    }

    /// The answers to one round; `None` if nobody gives them.
    async fn round(
        &mut self,
        name: &str,
        prompts: Vec<Prompt>,
        said: &mut Said,
    ) -> Option<Vec<String>> {
        let mut answers = Vec::new();
        for prompt in prompts {
            self.needed_person = true;
            let first = answers.is_empty();
            let question = Question::Interactive {
                host: self.context.hop.host.clone(),
                name: if first { tame(name, false) } else { String::new() },
                instructions: said.tell(),
                prompt: tame(&prompt.prompt, false),
                echo: prompt.echo,
            };
            answers.push(self.ask(question).await?.expose().to_owned());
        }
        Some(answers)
    }

    fn endless(&self) -> Failure {
        Failure::new(
            Cause::Protocol,
            format!("{} asks without end while logging in", self.context.hop.place()),
        )
    }

    /// A password, as often as a person may mistype it.
    pub(super) async fn password(&mut self, mut offered: MethodSet) -> Result<Verdict, Failure> {
        for number in 0..self.context.hop.password_prompts {
            let question = Question::Password {
                user: self.context.hop.user.clone(),
                host: self.context.hop.host.clone(),
                again: number > 0,
            };
            self.needed_person = true;
            let Some(password) = self.ask(question).await else {
                return Err(match number {
                    0 => self.story.needs_person(self.context.hop, "wants a password"),
                    _ => self.refused(&offered),
                });
            };
            self.story.tried.push("a password".to_owned());
            let user = self.context.hop.user.clone();
            let trying = self.handle.authenticate_password(user, password.expose());
            let Ok(result) = timeout(ANSWER_TIMEOUT, trying).await else {
                return Err(self.unanswered_password());
            };
            let result = self.answered(Ok(result)).await?;
            match self.verdict(result).await? {
                Verdict::No(methods) => offered = methods,
                verdict @ (Verdict::In | Verdict::More(_)) => return Ok(verdict),
            }
            if !offered.contains(&MethodKind::Password) {
                break;
            }
        }
        Ok(Verdict::No(offered))
    }

    /// The library passes over a request for a new password (`SSH_MSG_USERAUTH_PASSWD_CHANGEREQ`),
    /// which then looks like silence. Trying again by itself would not help.
    fn unanswered_password(&self) -> Failure {
        let hop = self.context.hop;
        Failure::new(
            Cause::Authentication,
            format!(
                "{} did not answer to the password within {} s; it may want the password changed",
                hop.place(),
                ANSWER_TIMEOUT.as_secs()
            ),
        )
        .fix(format!("log in once by hand: ssh -p {} {}@{}", hop.port, hop.user, hop.host))
    }
}

impl Said {
    fn hear(&mut self, instructions: &str) {
        let text = tame(instructions, true);
        self.0.extend((!text.trim().is_empty()).then_some(text));
    }

    fn tell(&mut self) -> String {
        std::mem::take(&mut self.0).join("\n")
    }
}

/// A server's text without what would steer the terminal.
fn tame(text: &str, lines: bool) -> String {
    let keep = |c: &char| !c.is_control() || *c == '\t' || (lines && *c == '\n');
    text.chars().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_does_not_steer_the_terminal() {
        assert_eq!(tame("Code\u{1b}[2J\r\n:\u{9b} ", false), "Code[2J: ");
        assert_eq!(tame("one\ntwo\u{7}", true), "one\ntwo");
    }

    #[test]
    fn what_is_said_without_a_question_comes_with_the_next_one() {
        let mut said = Said::default();
        said.hear("one");
        said.hear(" ");
        said.hear("two");
        assert_eq!(said.tell(), "one\ntwo");
        assert_eq!(said.tell(), "");
    }
}
