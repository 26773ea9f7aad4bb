//! What Linux can be told of a socket; elsewhere nothing.

use nix::Result;
use tokio::net::TcpStream;

/// Has the kernel call `stream` readable from so many bytes on; on other systems every byte wakes.
pub(super) fn wake_from(stream: &TcpStream, bytes: u64) -> Result<()> {
    #[cfg(target_os = "linux")]
    options::wake_from(stream, bytes)?;
    Ok(())
}

/// Has the kernel wait for 8 ms at most with an acknowledgement.
///
/// # Errors
///
/// Those of a kernel that cannot: Linux before 6.15, other systems.
pub(super) fn limit_delay(stream: &TcpStream) -> Result<()> {
    #[cfg(target_os = "linux")]
    return options::limit_delay(stream);
    #[cfg(not(target_os = "linux"))]
    Err(nix::errno::Errno::ENOPROTOOPT)
}

#[cfg(target_os = "linux")]
mod options {
    use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::SetSockOpt};
    use tokio::net::TcpStream;

    /// As in Linux's `uapi/linux/tcp.h`; the `libc` crate does not have it yet.
    const TCP_DELACK_MAX_US: libc::c_int = 46;
    /// The least that a kernel takes that counts time in steps of 4 ms, microseconds.
    const DELAY: libc::c_int = 8_000;

    sockopt_impl!(
        /// The bytes from which on a socket is readable.
        LowWater,
        SetOnly,
        libc::SOL_SOCKET,
        libc::SO_RCVLOWAT,
        libc::c_int
    );

    sockopt_impl!(
        /// How long an acknowledgement waits for something to go with, microseconds.
        LongestDelay,
        SetOnly,
        libc::IPPROTO_TCP,
        TCP_DELACK_MAX_US,
        libc::c_int
    );

    pub(super) fn wake_from(stream: &TcpStream, bytes: u64) -> nix::Result<()> {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        LowWater.set(stream, &bytes)
    }

    pub(super) fn limit_delay(stream: &TcpStream) -> nix::Result<()> {
        LongestDelay.set(stream, &DELAY)
    }
}
