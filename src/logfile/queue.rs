//! The queue before a log file or standard error: whoever logs never waits for a disk or a terminal.

use std::{
    io::{self, Write as _},
    sync::{
        Arc, PoisonError, RwLock, TryLockError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{DayFile, form::Form, panic::LastWords, redact};
use crate::secret::Secret;

/// Lines that may wait for the disk.
const WAITING: usize = 4_096;
/// Lines that may wait for whoever reads standard error, which may be for ever.
const UNREAD: usize = 512;
/// The longest line, bytes; the rest is cut off.
const LONGEST: usize = 16 * 1024;
/// How long the end waits for what is queued to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the end waits before it looks for room in a full queue again.
const PAUSE: Duration = Duration::from_millis(2);

/// What the rest of the program knows of its log; without a log it is empty and does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    lost: Arc<AtomicU64>,
    known: Arc<RwLock<Vec<Secret>>>,
}

impl Handle {
    /// One that conceals from the lines of `console` what is concealed from it.
    pub(crate) fn beside(console: Option<&PlainLines>) -> Self {
        let known = console.map(|console| Arc::clone(&console.0.handle.known));
        Self { lost: Arc::default(), known: known.unwrap_or_default() }
    }

    /// How many lines were lost: the queue or the disk was full.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Has `secret` masked wherever it would stand in the log.
    pub(crate) fn conceal(&self, secret: &Secret) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).push(secret.clone());
    }

    /// `text` without secrets.
    pub(super) fn masked(&self, text: &str) -> String {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        redact::masked(text, &known).into_owned()
    }

    /// The same without waiting; `None` while somebody changes what is known.
    pub(super) fn masked_at_once(&self, text: &str) -> Option<String> {
        let known = match self.known.try_read() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(known)) => known.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(redact::masked(text, &known).into_owned())
    }
}

pub(super) enum Message {
    Line(String),
    /// Everything before it is to be written, and the end to be confirmed.
    End(SyncSender<()>),
}

/// Where lines are handed in.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    sender: SyncSender<Message>,
    pub(super) handle: Handle,
    /// The thread that writes.
    writer: ThreadId,
}

impl Lines {
    /// Hands a line in, without its end; one that finds no room is lost and counted.
    pub(super) fn push(&self, line: String) {
        self.count(self.sender.try_send(Message::Line(cut(line))).is_ok());
    }

    /// Hands a last line in and waits until everything is written, for `limit` at most. The thread that
    /// writes waits for nobody: there is none left to write.
    pub(super) fn finish(&self, last: Option<String>, limit: Duration) {
        if thread::current().id() == self.writer {
            return;
        }
        let deadline = Instant::now() + limit;
        if let Some(line) = last {
            self.count(self.send(Message::Line(cut(line)), deadline));
        }
        let (done, is_done) = sync_channel(1);
        if self.send(Message::End(done), deadline) {
            // Too late, or nobody left to write: either way there is nothing more to wait for.
            let _over = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Hands in once there is room; `false` if there was none in time.
    fn send(&self, mut message: Message, deadline: Instant) -> bool {
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Full(message)) if Instant::now() < deadline => message,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            };
            thread::sleep(PAUSE);
        }
    }

    fn count(&self, is_in: bool) {
        if !is_in {
            self.handle.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A line of bounded length.
fn cut(mut line: String) -> String {
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or_default());
    }
    line
}

/// The thread that writes; dropped, it waits a moment for what is queued.
pub(crate) struct Writer {
    lines: Lines,
    form: Form,
}

impl Writer {
    /// Has a panic of this process write its own line, and whatever is queued before it, first: the
    /// program that panics drops nothing. The same is said in the console's lines, or else on standard
    /// error itself. Waits for a disk and for a reader a second each at most.
    pub(crate) fn outlive_panics(&self, console: Option<&PlainLines>) {
        let console = console.map(|console| console.0.clone());
        LastWords { log: Some((self.lines.clone(), self.form)), console }.install();
    }
}

/// Begins a log in lines of JSON: where they are handed in, what the program knows of it, and who
/// writes. What is concealed from it is concealed from the lines of `console` as well.
pub(crate) fn open(
    file: DayFile,
    console: Option<&PlainLines>,
) -> io::Result<(super::JsonLines, Handle, Writer)> {
    let (lines, writer) = start(into(file), Form::Json, Handle::beside(console), WAITING)?;
    let handle = lines.handle.clone();
    Ok((super::JsonLines::new(lines), handle, writer))
}

/// Begins a log in plain lines: where they are handed in, and who writes.
pub(crate) fn open_plain(file: DayFile) -> io::Result<(PlainLines, Writer)> {
    let (lines, writer) = start(into(file), Form::Plain, Handle::default(), WAITING)?;
    Ok((PlainLines(lines), writer))
}

/// Begins plain lines on standard error: a terminal that was stopped, or a parent that reads no more,
/// costs lines there and holds up nobody. A panic of this process says its words there too.
pub(crate) fn open_console() -> io::Result<(PlainLines, Writer)> {
    let append = |text: &[u8], _| io::stderr().write_all(text);
    let (lines, writer) = start(append, Form::Plain, Handle::default(), UNREAD)?;
    LastWords { log: None, console: Some(lines.clone()) }.install();
    Ok((PlainLines(lines), writer))
}

fn into(mut file: DayFile) -> impl FnMut(&[u8], Timestamp) -> io::Result<()> {
    move |text, now| file.append(text, now)
}

fn start(
    append: impl FnMut(&[u8], Timestamp) -> io::Result<()> + Send + 'static,
    form: Form,
    handle: Handle,
    waiting: usize,
) -> io::Result<(Lines, Writer)> {
    let (sender, receiver) = sync_channel(waiting);
    let lost = Arc::clone(&handle.lost);
    let work = move || write(append, &receiver, &lost, form);
    let thread = thread::Builder::new().name("log".to_owned()).spawn(work)?;
    let lines = Lines { sender, handle, writer: thread.thread().id() };
    Ok((lines.clone(), Writer { lines, form }))
}

/// Where the lines of a formatter are handed in; one write is one event.
#[derive(Debug, Clone)]
pub(crate) struct PlainLines(Lines);

impl PlainLines {
    /// Hands in a line without its end, as it is.
    pub(crate) fn push(&self, line: String) {
        self.0.push(line);
    }
}

impl io::Write for PlainLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        self.push(self.0.handle.masked(&String::from_utf8_lossy(line)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.finish(None, FAREWELL);
    }
}

fn write(
    mut append: impl FnMut(&[u8], Timestamp) -> io::Result<()>,
    lines: &Receiver<Message>,
    lost: &AtomicU64,
    form: Form,
) {
    let mut told = 0;
    while let Ok(message) = lines.recv() {
        let line = match message {
            Message::Line(line) => line,
            Message::End(done) => {
                // Whoever does not wait any more needs no answer.
                let _gone = done.try_send(());
                continue;
            }
        };
        let now = Timestamp::now();
        if append(format!("{line}\n").as_bytes(), now).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let all = lost.load(Ordering::Relaxed);
        if all > told && append(form.loss(all - told, now).as_bytes(), now).is_ok() {
            told = all;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn lines_into(sender: SyncSender<Message>) -> Lines {
        let writer = thread::spawn(|| ()).thread().id();
        Lines { sender, handle: Handle::default(), writer }
    }

    #[test]
    fn who_must_not_wait_gets_no_text_while_secrets_are_being_told() {
        let handle = Handle::default();
        assert_eq!(handle.masked_at_once("a text").as_deref(), Some("a text"));
        let _telling = handle.known.write().unwrap();
        assert_eq!(handle.masked_at_once("a text"), None);
    }

    #[test]
    fn what_the_disk_refuses_is_counted_and_said_once_it_takes_lines_again() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        // A file where the folder should be refuses every line, for root as well.
        std::fs::write(&folder, "").unwrap();
        let (lines, handle, writer) = open(DayFile::new(&folder, "gateway-"), None).unwrap();
        for _ in 0..3 {
            lines.lines.push("{}".to_owned());
        }
        drop(writer);
        assert_eq!(handle.lost(), 3);
        std::fs::remove_file(&folder).unwrap();
        lines.lines.push("{\"message\":\"back\"}".to_owned());
        lines.lines.finish(None, FAREWELL);
        let path = super::super::newest(&folder, "gateway-").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        assert!(found[0].contains("back") && found[1].contains("\"lost\":3"), "{text}");
    }

    #[test]
    fn plain_lines_are_written_as_they_are_and_their_loss_is_said_in_their_own_form() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        std::fs::write(&folder, "").unwrap();
        let (mut lines, writer) = open_plain(DayFile::new(&folder, "supervisor.")).unwrap();
        lines.write_all(b"lost\n").unwrap();
        drop(writer);
        std::fs::remove_file(&folder).unwrap();
        lines.write_all(b"kept\n").unwrap();
        lines.0.finish(None, FAREWELL);
        let path = super::super::newest(&folder, "supervisor.").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        assert!(found[0] == "kept" && found[1].ends_with("was full lost=1"), "{text}");
    }

    #[test]
    fn what_is_concealed_from_a_log_is_concealed_from_the_lines_beside_it() {
        let (sender, receiver) = sync_channel(1);
        let mut console = PlainLines(lines_into(sender));
        let log = Handle::beside(Some(&console));
        log.conceal(&Secret::new("correct horse"));
        console.write_all(b"he said correct horse\n").unwrap();
        assert!(matches!(receiver.recv(), Ok(Message::Line(line)) if line == "he said ***"));
    }

    #[test]
    fn who_takes_no_lines_holds_nobody_up_and_what_was_lost_is_said() {
        let (begun, begins) = channel();
        let (taken, takes) = sync_channel(0);
        let append = move |text: &[u8], _| {
            begun.send(()).map_err(io::Error::other)?;
            taken.send(String::from_utf8_lossy(text).into_owned()).map_err(io::Error::other)
        };
        let (lines, _writer) = start(append, Form::Plain, Handle::default(), UNREAD).unwrap();
        let mut console = PlainLines(lines.clone());
        let mut say = || console.write_all(b"a line with token=abcdef\n").unwrap();
        say();
        begins.recv_timeout(LIMIT).unwrap();
        for _ in 0..UNREAD + 9 {
            say();
        }
        assert_eq!(lines.handle.lost(), 9);
        assert_eq!(takes.recv_timeout(LIMIT).unwrap(), "a line with token=***\n");
        assert!(takes.recv_timeout(LIMIT).unwrap().ends_with("was full lost=9\n"));
    }

    #[test]
    fn the_end_waits_for_room_and_for_no_disk_that_does_not_answer() {
        let (sender, stuck) = sync_channel(1);
        let lines = lines_into(sender);
        let (ended, is_ended) = sync_channel(1);
        let ending = lines.clone();
        thread::spawn(move || {
            for room in ["for the last line and not for the end", "for nothing"] {
                ending.finish(Some(room.to_owned()), Duration::from_millis(10));
            }
            ended.send(()).unwrap();
        });
        is_ended.recv_timeout(Duration::from_secs(20)).expect("an end without the disk");
        assert_eq!(lines.handle.lost(), 1);
        let ending = thread::spawn(move || lines.finish(None, Duration::from_secs(20)));
        assert!(matches!(stuck.recv(), Ok(Message::Line(_))));
        let Ok(Message::End(done)) = stuck.recv() else { panic!("no end") };
        done.send(()).unwrap();
        ending.join().unwrap();
    }

    #[test]
    fn whoever_logs_into_a_full_queue_does_not_wait() {
        let (sender, _receiver) = sync_channel(1);
        let lines = lines_into(sender);
        lines.push("one".to_owned());
        lines.push("two".to_owned());
        assert_eq!(lines.handle.lost(), 1);
        let (sender, receiver) = sync_channel(1);
        let lines = lines_into(sender);
        lines.push("ä".repeat(LONGEST));
        let Ok(Message::Line(line)) = receiver.recv() else { panic!("no line") };
        assert!(line.len() <= LONGEST);
    }
}
