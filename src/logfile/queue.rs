//! The queue before the log file: whoever logs never waits for the disk.

use std::{
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{DayFile, redact};
use crate::secret::Secret;

/// Lines that may wait for the disk.
const WAITING: usize = 4_096;
/// The longest line, bytes; the rest is cut off.
const LONGEST: usize = 16 * 1024;
/// How long the end waits for the disk.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the rest of the program knows of its log; without a log it is empty and does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    lost: Arc<AtomicU64>,
    known: Arc<RwLock<Vec<Secret>>>,
}

impl Handle {
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
}

enum Message {
    Line(String),
    /// Everything before it is to be written, and the end to be confirmed.
    End(SyncSender<()>),
}

/// Where lines are handed in.
#[derive(Clone)]
pub(super) struct Lines {
    sender: SyncSender<Message>,
    pub(super) handle: Handle,
}

impl Lines {
    /// Hands a line in, without its end; one that finds no room is lost and counted.
    pub(super) fn push(&self, mut line: String) {
        if line.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| line.is_char_boundary(*end));
            line.truncate(end.unwrap_or_default());
        }
        match self.sender.try_send(Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.handle.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread that writes; dropped, it waits a moment for what is queued.
pub(crate) struct Writer {
    sender: SyncSender<Message>,
}

/// Begins a log in lines of JSON: where they are handed in, what the program knows of it, and who
/// writes.
pub(crate) fn open(file: DayFile) -> io::Result<(super::JsonLines, Handle, Writer)> {
    let (lines, writer) = start(file, json_notice)?;
    let handle = lines.handle.clone();
    Ok((super::JsonLines::new(lines), handle, writer))
}

/// Begins a log in plain lines: where they are handed in, and who writes.
pub(crate) fn open_plain(file: DayFile) -> io::Result<(PlainLines, Writer)> {
    let (lines, writer) = start(file, plain_notice)?;
    Ok((PlainLines(lines), writer))
}

fn start(file: DayFile, notice: fn(u64, Timestamp) -> String) -> io::Result<(Lines, Writer)> {
    let (sender, receiver) = sync_channel(WAITING);
    let handle = Handle::default();
    let lost = Arc::clone(&handle.lost);
    let work = move || write(file, &receiver, &lost, notice);
    thread::Builder::new().name("log".to_owned()).spawn(work)?;
    Ok((Lines { sender: sender.clone(), handle }, Writer { sender }))
}

/// Where the lines of a formatter are handed in; one write is one event.
#[derive(Clone)]
pub(crate) struct PlainLines(Lines);

impl io::Write for PlainLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        self.0.push(String::from_utf8_lossy(line).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        // A queue that is full at the end stands before a disk that does not answer.
        if self.sender.try_send(Message::End(done)).is_ok() {
            match is_done.recv_timeout(FAREWELL) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

fn write(
    mut file: DayFile,
    lines: &Receiver<Message>,
    lost: &AtomicU64,
    notice: fn(u64, Timestamp) -> String,
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
        if file.append(format!("{line}\n").as_bytes(), now).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let all = lost.load(Ordering::Relaxed);
        if all > told && file.append(notice(all - told, now).as_bytes(), now).is_ok() {
            told = all;
        }
    }
}

/// What is said of lost lines.
const LOSS: &str = "log lines were lost: the disk or the queue was full";

fn json_notice(lost: u64, now: Timestamp) -> String {
    let line = serde_json::json!({
        "time": super::line::stamp(now), "level": "warn", "subsystem": "log",
        "message": LOSS, "lost": lost,
    });
    format!("{line}\n")
}

fn plain_notice(lost: u64, now: Timestamp) -> String {
    format!("{}  WARN {LOSS} lost={lost}\n", super::line::stamp(now))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_the_disk_refuses_is_counted_and_said_once_it_takes_lines_again() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        // A file where the folder should be refuses every line, for root as well.
        std::fs::write(&folder, "").unwrap();
        let (lines, handle, writer) = open(DayFile::new(&folder, "gateway-")).unwrap();
        for _ in 0..3 {
            lines.lines.push("{}".to_owned());
        }
        drop(writer);
        assert_eq!(handle.lost(), 3);
        std::fs::remove_file(&folder).unwrap();
        lines.lines.push("{\"message\":\"back\"}".to_owned());
        drop(Writer { sender: lines.lines.sender });
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
        drop(Writer { sender: lines.0.sender });
        let path = super::super::newest(&folder, "supervisor.").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        assert!(found[0] == "kept" && found[1].ends_with("was full lost=1"), "{text}");
    }

    #[test]
    fn whoever_logs_into_a_full_queue_does_not_wait() {
        let (sender, _receiver) = sync_channel(1);
        let lines = Lines { sender, handle: Handle::default() };
        lines.push("one".to_owned());
        lines.push("two".to_owned());
        assert_eq!(lines.handle.lost(), 1);
        let (sender, receiver) = sync_channel(1);
        let lines = Lines { sender, handle: Handle::default() };
        lines.push("ä".repeat(LONGEST));
        let Ok(Message::Line(line)) = receiver.recv() else { panic!("no line") };
        assert!(line.len() <= LONGEST);
    }
}
