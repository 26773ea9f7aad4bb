//! Questions to the person at the terminal, whatever standard input and output are.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::output::plain;
use crate::{
    control::{Answer, Question},
    secret::Secret,
};

/// The terminal of this process, if it has one.
fn terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// Whether there is a person to ask.
pub(super) fn is_possible() -> bool {
    terminal().is_ok()
}

/// Asks; `None` if the person declines or leaves. Blocks.
pub(super) fn question(question: &Question) -> io::Result<Option<Secret>> {
    match question.kind {
        Answer::YesNo => {
            let answer = line(&question.text)?;
            let is_yes = matches!(answer.to_lowercase().as_str(), "y" | "yes");
            Ok(is_yes.then(|| Secret::new("yes")))
        }
        Answer::Shown => Ok(Some(Secret::new(line(&question.text)?))),
        Answer::Hidden => Ok(Some(hidden(&question.text)?)),
    }
}

/// Asks for yes or no; an empty answer means `default`. Blocks.
pub(super) fn yes(text: &str, default: bool) -> io::Result<bool> {
    let answer = line(text)?;
    Ok(if answer.is_empty() {
        default
    } else {
        matches!(answer.to_lowercase().as_str(), "y" | "yes")
    })
}

/// Asks for text that is not shown. Blocks.
pub(super) fn hidden(text: &str) -> io::Result<Secret> {
    // The library shows the question first: what is typed in between would be on the screen.
    let _silent = Silent::make(terminal()?)?;
    rpassword::prompt_password(plain(text, false)).map(Secret::new)
}

/// A terminal that does not show what is typed, for as long as this lives.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn make(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&terminal, SetArg::TCSANOW, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway.
        let _gone = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

fn line(text: &str) -> io::Result<String> {
    let mut terminal = terminal()?;
    terminal.write_all(plain(text, false).as_bytes())?;
    terminal.flush()?;
    let mut answer = String::new();
    if BufReader::new(terminal).read_line(&mut answer)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the terminal was closed"));
    }
    Ok(answer.trim().to_owned())
}
