//! What a panic leaves in the log: every line that was queued before it, and its own.
//!
//! The program ends with its first panic (`panic = "abort"`), and nothing is dropped then.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io,
    panic::set_hook,
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{form::Form, queue::Lines};

/// How long a panic waits for the disk, and then for whoever reads standard error.
const LIMIT: Duration = Duration::from_secs(1);
/// What stands for a text that cannot be searched for secrets now.
const UNSAID: &str = "(its text may hold a secret)";

/// Who gets the last line, which a panic hands in.
pub(super) struct LastWords {
    /// A log, and the form of its lines.
    pub(super) log: Option<(Lines, Form)>,
    /// The lines of standard error, which is written directly where it has none.
    pub(super) console: Option<Lines>,
}

impl LastWords {
    /// Takes the place of what panics do otherwise, which tells standard error, and so perhaps a
    /// journal, the text as it is.
    ///
    /// Logs nothing through `tracing` and waits for no lock of ours, which the panic may have come in
    /// the middle of. Each of two threads that panic waits for itself, or the first would end the
    /// other's wait.
    pub(super) fn install(self) {
        set_hook(Box::new(move |panic| {
            let what = panic.payload_as_str().unwrap_or("without a text");
            let what = self.masked(what);
            let what = what.as_deref().unwrap_or(UNSAID);
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            if let Some((log, form)) = &self.log {
                log.finish(Some(form.panic(what, &place, Timestamp::now())), LIMIT);
            }
            // Last, as nobody may read it; and where it is closed there is nobody to tell.
            match &self.console {
                Some(console) => {
                    let mut text = Vec::new();
                    drop(tell(&mut text, what, &place));
                    let text = String::from_utf8_lossy(&text);
                    text.lines().for_each(|line| console.push(line.to_owned()));
                    console.finish(None, LIMIT);
                }
                None => drop(tell(&mut io::stderr(), what, &place)),
            }
        }));
    }

    fn masked(&self, text: &str) -> Option<String> {
        let log = self.log.as_ref().map(|(log, _)| log);
        log.or(self.console.as_ref())?.handle.masked_at_once(text)
    }
}

/// Says the same to whoever watches, with a backtrace where `RUST_BACKTRACE` asks for one.
fn tell(to: &mut impl io::Write, what: &str, place: &str) -> io::Result<()> {
    let thread = thread::current();
    writeln!(to, "thread '{}' panicked at {place}:\n{what}", thread.name().unwrap_or("unnamed"))?;
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        writeln!(to, "{trace}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Seek as _, Write as _},
        path::Path,
        process::{Command, Stdio},
        sync::mpsc::channel,
    };

    use super::{
        super::{DayFile, newest, open_plain},
        *,
    };

    const PREFIX: &str = "supervisor.";
    /// Names the folder of the log to the process that is to panic.
    const FOLDER: &str = "OPENCLAW_TEST_PANIC";
    /// Has it say what it says through a queue.
    const CONSOLE: &str = "OPENCLAW_TEST_PANIC_CONSOLE";
    /// Fewer than may wait, and more than are written before the process is gone.
    const QUEUED: usize = 3_000;

    /// Not a test of its own: the process that panics, and ends at once as a release does.
    #[test]
    fn panics_where_it_is_told_to() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let (mut lines, writer) = open_plain(DayFile::new(Path::new(&folder), PREFIX)).unwrap();
        let console = std::env::var_os(CONSOLE).map(|_| super::super::open_console().unwrap().0);
        writer.outlive_panics(console.as_ref());
        if let Some(console) = &console {
            console.push("said before it".to_owned());
        }
        let ours = std::panic::take_hook();
        set_hook(Box::new(move |panic| {
            ours(panic);
            std::process::abort();
        }));
        for number in 0..QUEUED {
            lines.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        panic!("no way on with token=abcdefgh");
    }

    /// Has another process panic that logs to `folder`, waits for its end, and gives what it said.
    fn has_panicked(folder: &Path, by_queue: bool) -> String {
        let name = "logfile::panic::tests::panics_where_it_is_told_to";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env(FOLDER, folder);
        if by_queue {
            command.env(CONSOLE, "");
        }
        let mut said = tempfile::tempfile().unwrap();
        command.stdout(Stdio::null()).stderr(said.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (ended, end) = channel();
        thread::spawn(move || ended.send(child.wait().unwrap()));
        let Ok(status) = end.recv_timeout(Duration::from_secs(60)) else {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            panic!("the panic did not end the process");
        };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{status}");
        let mut text = String::new();
        said.rewind().unwrap();
        said.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lines_that_were_queued_before_a_panic_are_written_and_its_own_without_secrets() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("logs");
        let said = has_panicked(&folder, false);
        assert!(said.contains(":\nno way on with token=***"), "{said}");
        let text = std::fs::read_to_string(newest(&folder, PREFIX).unwrap()).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), QUEUED + 1);
        let last = found[QUEUED];
        assert!(last.contains("ERROR panicked: no way on with token=*** at=src/"), "{last}");
    }

    #[test]
    fn lines_that_wait_for_standard_error_are_written_before_those_of_a_panic() {
        let home = tempfile::tempdir().unwrap();
        let said = has_panicked(&home.path().join("logs"), true);
        let (before, panic) = said.split_once("thread '").unwrap_or_else(|| panic!("{said}"));
        assert!(before.contains("said before it\n"), "{said}");
        assert!(panic.contains(":\nno way on with token=***\n"), "{said}");
    }

    #[test]
    fn a_panic_ends_although_the_disk_does_not_answer() {
        let home = tempfile::tempdir().unwrap();
        // Whoever opens it waits for a reader.
        let today = Timestamp::now();
        for day in [today, today + Duration::from_secs(86_400)] {
            let name = format!("{PREFIX}{}.log", day.strftime("%Y-%m-%d"));
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::unistd::mkfifo(&home.path().join(name), mode).unwrap();
        }
        has_panicked(home.path(), false);
    }
}
