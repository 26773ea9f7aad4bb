//! Looking at other processes through `/proc`.

use std::{fs, path::Path, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Whether a process exists that has not ended.
pub(crate) fn alive(pid: Pid) -> bool {
    kill(pid, None).is_ok() && !matches!(stat(pid), None | Some(('Z' | 'X', _)))
}

/// Whether a process exists that has neither ended nor been stopped.
pub(crate) fn is_running(pid: Pid) -> bool {
    !matches!(stat(pid), None | Some(('Z' | 'X' | 'T', _)))
}

/// Sends a signal; `false` if there is nobody to take it.
pub(crate) fn signal(pid: Pid, signal: Signal) -> bool {
    kill(pid, signal).is_ok()
}

/// The processes whose environment holds `NAME=value`, this one apart.
pub(crate) fn with_variable(name: &str, value: &Path) -> Vec<(Pid, String)> {
    let wanted = format!("{name}={}", value.display());
    let holds = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    all()
        .into_iter()
        .filter(|pid| *pid != Pid::this() && alive(*pid) && holds(pid))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// The children of a process and theirs, the nearest first.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> =
        all().into_iter().filter_map(|pid| Some((pid, stat(pid)?.1))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// The memory that a process keeps resident.
pub(crate) fn resident_bytes(pid: Pid) -> Option<u64> {
    of_status(pid, "VmRSS:")
}

/// The most that a process has ever kept resident.
pub(crate) fn peak_bytes(pid: Pid) -> Option<u64> {
    of_status(pid, "VmHWM:")
}

fn of_status(pid: Pid, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The memory that it keeps resident, with what is shared with others divided among them.
pub(crate) fn proportional_bytes(pid: Pid) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// How often the threads of a process that run now have gone to sleep so far, and so how often
/// they were woken.
pub(crate) fn switches(pid: Pid) -> u64 {
    let of_thread = |status: String| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    };
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let files = threads.filter_map(Result::ok).map(|thread| thread.path().join("status"));
    files.filter_map(|path| fs::read_to_string(path).ok()).filter_map(of_thread).sum()
}

/// The processor time that a process has had so far, in steps of 10 ms.
pub(crate) fn cpu_time(pid: Pid) -> Duration {
    // The unit of that file on every Linux that people run, whatever the kernel's own ticks are.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // utime and stime; the first field after the name is the third of all.
    let ticks = fields.split_whitespace().skip(11).take(2);
    TICK * ticks.filter_map(|field| field.parse::<u32>().ok()).sum()
}

/// The arguments of a process, for messages.
fn command_line(pid: Pid) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

fn all() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("reading /proc").filter_map(Result::ok);
    entries
        .filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
        .collect()
}

/// The state and the parent of a process.
fn stat(pid: Pid) -> Option<(char, Pid)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets and blanks included.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}
