//! The supervisor's book: notes what happens, keeps the last of it at hand, and has it written.
//!
//! Writing is a thread's job: a disk that hangs or is full must not hold up a tunnel. What the
//! thread cannot take is lost to the files, and stays at hand.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::warn;

use super::{
    Entry, Happening,
    entry::Before,
    file::{self, Writer},
};

/// Entries at hand.
const AT_HAND: usize = 256;
/// Entries that may wait to be written.
const UNWRITTEN: usize = 256;
/// How long the last entries may take to be written at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    /// How many entries were noted.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Pages {
    at_hand: VecDeque<Entry>,
    writer: Option<SyncSender<Entry>>,
    /// Ends when the writing thread has.
    written: Option<Receiver<()>>,
}

impl Book {
    /// A book that goes on where the files in `folder` end. What cannot be read or written is done
    /// without.
    pub(crate) fn open(folder: &Path) -> Self {
        let before = file::read(folder).unwrap_or_default();
        let from = before.len().saturating_sub(AT_HAND);
        let at_hand = before.into_iter().skip(from).collect();
        let (writer, entries) = mpsc::sync_channel(UNWRITTEN);
        let (done, written) = mpsc::sync_channel(1);
        let file = Writer::new(folder);
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            write(file, &entries);
            drop(done);
        });
        if let Err(error) = &thread {
            warn!(%error, "the history is not written");
        }
        let pages = Pages {
            at_hand,
            writer: thread.is_ok().then_some(writer),
            written: thread.is_ok().then_some(written),
        };
        Self { pages: Mutex::new(pages), count: watch::Sender::new(0) }
    }

    /// A book that is not written anywhere.
    #[cfg(test)]
    pub(crate) fn unwritten() -> Self {
        Self { pages: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// Notes that something happened just now to the machine or the supervisor.
    pub(crate) fn note(&self, happening: Happening) {
        self.note_of(None, None, happening);
    }

    /// Notes that something happened just now to a remote, or to one of its forwards.
    pub(crate) fn note_of(
        &self,
        remote: Option<String>,
        forward: Option<String>,
        happening: Happening,
    ) {
        let at = Entry::rounded(Timestamp::now());
        let entry = Entry { at, remote, forward, happening };
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &pages.writer {
            // One that is full is behind a disk that hangs: this entry is lost to the files.
            let (Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) =
                writer.try_send(entry.clone());
        }
        if pages.at_hand.len() >= AT_HAND {
            pages.at_hand.pop_front();
        }
        pages.at_hand.push_back(entry);
        drop(pages);
        self.count.send_modify(|count| *count += 1);
    }

    /// Notes that a supervisor begins its work, and how the one before it went. `booted` is when
    /// the machine was started, `took_over` whether the one before handed its place over.
    pub(crate) fn note_start(&self, booted: Option<Timestamp>, took_over: bool) {
        let last = self.at_hand(1).pop();
        let after = last.map(|last| match booted.filter(|booted| *booted > last.at) {
            _ if took_over => Before::Replaced,
            _ if last.happening == Happening::Ended => Before::Ended,
            Some(booted) => Before::Rebooted { booted: Entry::rounded(booted) },
            None => Before::Killed,
        });
        self.note(Happening::Started { pid: std::process::id(), after });
    }

    /// Tells when something was noted.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// The last `most` entries, the oldest first.
    pub(crate) fn at_hand(&self, most: usize) -> Vec<Entry> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let from = pages.at_hand.len().saturating_sub(most);
        pages.at_hand.iter().skip(from).cloned().collect()
    }

    /// Has the last entries written, for a second at most. Nothing is written afterwards.
    pub(crate) fn close(&self) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        drop(pages.writer.take());
        let written = pages.written.take();
        drop(pages);
        if let Some(written) = written {
            // It never says anything: it ends with the thread, or is late.
            let _ended = written.recv_timeout(CLOSE_LIMIT);
        }
    }
}

/// Writes until nobody notes any more; what a full disk refused is tried again with the next entry.
fn write(mut file: Writer, entries: &Receiver<Entry>) {
    let mut unwritten = VecDeque::new();
    while let Ok(entry) = entries.recv() {
        let is_failing = !unwritten.is_empty();
        if unwritten.len() >= UNWRITTEN {
            unwritten.pop_front();
        }
        unwritten.push_back(entry);
        while let Some(first) = unwritten.front() {
            if let Err(error) = file.append(first) {
                if !is_failing {
                    warn!(kind = %error.kind(), "the history cannot be written");
                }
                break;
            }
            unwritten.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happenings(entries: &[Entry]) -> Vec<&Happening> {
        entries.iter().map(|entry| &entry.happening).collect()
    }

    #[test]
    fn what_was_noted_outlives_the_book() {
        let home = tempfile::tempdir().unwrap();
        let book = Book::open(home.path());
        book.note_start(None, false);
        book.note_of(Some("vps".to_owned()), None, Happening::Connected);
        book.note(Happening::Ended);
        book.close();
        book.note(Happening::Continued);
        assert_eq!(*book.watch().borrow(), 4);

        let next = Book::open(home.path());
        next.note_start(None, false);
        let entries = next.at_hand(2);
        let pid = std::process::id();
        let started = Happening::Started { pid, after: Some(Before::Ended) };
        assert_eq!(happenings(&entries), [&Happening::Ended, &started]);
        next.close();
        assert_eq!(file::read(home.path()).unwrap().len(), 4);
    }

    #[test]
    fn a_start_tells_a_kill_from_a_reboot() {
        let book = Book::unwritten();
        let after = |book: &Book| {
            let last = book.at_hand(1).pop().unwrap().happening;
            let Happening::Started { after, .. } = last else { panic!("{last:?}") };
            after
        };
        let booted = Timestamp::now() - Duration::from_secs(60);
        book.note_start(Some(booted), false);
        assert_eq!(after(&book), None);
        book.note_start(Some(booted), false);
        assert_eq!(after(&book), Some(Before::Killed));
        let later = Timestamp::now() + Duration::from_secs(60);
        book.note_start(Some(later), false);
        assert!(matches!(after(&book), Some(Before::Rebooted { .. })));
        book.note_start(Some(booted), true);
        assert_eq!(after(&book), Some(Before::Replaced));
    }

    #[test]
    fn a_folder_that_takes_nothing_costs_only_the_files() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("file");
        std::fs::write(&folder, "").unwrap();
        let book = Book::open(&folder);
        for _ in 0..2 * AT_HAND {
            book.note(Happening::Continued);
        }
        assert_eq!(book.at_hand(usize::MAX).len(), AT_HAND);
        book.close();
    }

    #[test]
    fn what_a_full_disk_refused_is_written_once_there_is_room() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        // What stands in the way of the first entry is gone before the second is taken: the channel
        // holds none.
        std::fs::write(&folder, "").unwrap();
        let (writer, entries) = mpsc::sync_channel(0);
        let thread = {
            let folder = folder.clone();
            std::thread::spawn(move || write(Writer::new(&folder), &entries))
        };
        let entry = |ms| Entry {
            at: Timestamp::UNIX_EPOCH,
            remote: None,
            forward: None,
            happening: Happening::Slept { ms },
        };
        writer.send(entry(1)).unwrap();
        writer.send(entry(2)).unwrap();
        std::fs::remove_file(&folder).unwrap();
        writer.send(entry(3)).unwrap();
        drop(writer);
        thread.join().unwrap();
        let slept: Vec<_> = file::read(&folder).unwrap().into_iter().map(|e| e.happening).collect();
        assert_eq!(slept, [1, 2, 3].map(|ms| Happening::Slept { ms }));
    }
}
