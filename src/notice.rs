//! Messages to the service manager, as in sd_notify(3).
//!
//! `sd-notify` and its like wait while the manager's queue is full; a supervisor must not, so a
//! message that cannot be sent at once is not sent, and the sender is told.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// The start is over, or a reload.
    Ready,
    /// A reload begins.
    Reloading,
    /// The end begins.
    Stopping,
    /// One line about how it goes.
    Status(&'a str),
    /// A sign of life.
    Watchdog,
    /// The start may take so much longer.
    ExtendTimeout(Duration),
}

impl Message<'_> {
    fn line(self) -> String {
        match self {
            Self::Ready => "READY=1\n".to_owned(),
            Self::Reloading => {
                // What tells the manager that `READY` belongs to this reload and to no earlier one.
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
                let now = now.unwrap_or_default().as_micros();
                format!("RELOADING=1\nMONOTONIC_USEC={now}\n")
            }
            Self::Stopping => "STOPPING=1\n".to_owned(),
            Self::Status(text) => format!("STATUS={}\n", text.replace(char::is_control, " ")),
            Self::Watchdog => "WATCHDOG=1\n".to_owned(),
            Self::ExtendTimeout(more) => format!("EXTEND_TIMEOUT_USEC={}\n", more.as_micros()),
        }
    }
}

/// Whether a service manager started this process and listens.
pub(crate) fn is_heard() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// Sends messages, never waiting; `Ok` where nobody listens.
pub(crate) fn send(messages: &[Message<'_>]) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) {
        Some(socket) => send_to(&socket, messages),
        None => Ok(()),
    }
}

fn send_to(socket: &OsStr, messages: &[Message<'_>]) -> io::Result<()> {
    let text: String = messages.iter().map(|message| message.line()).collect();
    let own = UnixDatagram::unbound()?;
    own.set_nonblocking(true)?;
    own.send_to_addr(text.as_bytes(), &address(socket)?).map(drop)
}

/// A path, or with `@` in front a name without a file.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_encoded_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(socket)
}

/// How long the service manager bears silence, if it watches this process.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    limit(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id())
}

fn limit(micros: Option<u64>, meant: Option<u64>, own: u32) -> Option<Duration> {
    let is_ours = meant.is_none_or(|pid| pid == u64::from(own));
    micros.filter(|micros| *micros > 0 && is_ours).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines_that_no_text_can_forge() {
        assert_eq!(Message::Status("a\nREADY=1").line(), "STATUS=a READY=1\n");
        let reloading = Message::Reloading.line();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(micros.parse::<u64>().unwrap() > 0);
        let more = Message::ExtendTimeout(Duration::from_secs(2)).line();
        assert_eq!(more, "EXTEND_TIMEOUT_USEC=2000000\n");
    }

    #[test]
    fn a_manager_that_does_not_read_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let full = (0..1000).find_map(|_| send_to(path.as_os_str(), &[Message::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        let count = manager.recv(&mut buffer).unwrap();
        assert_eq!(buffer.get(..count).unwrap(), b"WATCHDOG=1\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_without_a_file_is_reached_as_well() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("openclaw-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send_to(OsStr::new(&format!("@{name}")), &[Message::Ready]).unwrap();
        let mut buffer = [0; 64];
        let count = manager.recv(&mut buffer).unwrap();
        assert_eq!(buffer.get(..count).unwrap(), b"READY=1\n");
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        assert_eq!(limit(Some(5), None, 7), Some(Duration::from_micros(5)));
        assert_eq!(limit(Some(5), Some(7), 7), Some(Duration::from_micros(5)));
        assert_eq!(limit(Some(5), Some(8), 7), None);
        assert_eq!(limit(Some(0), None, 7), None);
        assert_eq!(limit(None, Some(7), 7), None);
    }
}
