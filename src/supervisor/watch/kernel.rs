//! The Linux kernel's own news: timers on clocks that sleep does not stop, and routes.

use std::{
    future::pending,
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            socket,
        },
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    unistd::read,
};
use tokio::io::unix::AsyncFd;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`, `RTMGRP_IPV6_IFADDR`
/// and `RTMGRP_IPV6_ROUTE` of rtnetlink(7), and `RTNLGRP_IPV6_RULE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18;
/// Longer than any wall clock will run before it is set again.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Reads of one batch of news; what is left wakes the watch again.
const READS_MOST: usize = 64;

/// Open ends towards the kernel.
pub(super) struct Kernel {
    boot: Source,
    wall: Source,
    routes: Source,
}

type Source = AsyncFd<OwnedFd>;

impl Kernel {
    /// Opens them; `None` if this kernel lacks one. Wants a runtime.
    pub(super) fn listen(period: Duration) -> Option<Self> {
        Some(Self {
            boot: boot_timer(period).ok()?,
            wall: wall_timer().ok()?,
            routes: source(routes().ok()?).ok()?,
        })
    }

    /// Waits until the kernel has something to say, and takes it in.
    pub(super) async fn news(&mut self) {
        tokio::select! {
            () = take(&self.boot, |timer| read(timer, &mut [0; 8])) => {}
            () = take(&self.wall, |timer| read(timer, &mut [0; 8])) => {
                // An old one stays silent; the boot clock's still makes us look.
                if let Ok(fresh) = wall_timer() {
                    self.wall = fresh;
                }
            }
            () = take(&self.routes, |socket| {
                recv(socket.as_raw_fd(), &mut [0; 4096], MsgFlags::empty())
            }) => {}
        }
    }
}

/// Fires every `period` of the clock that runs on while the machine sleeps, so also at resume.
fn boot_timer(period: Duration) -> io::Result<Source> {
    let again = Expiration::Interval(TimeSpec::from_duration(period));
    timer(ClockId::CLOCK_BOOTTIME, again, TimerSetTimeFlags::empty())
}

/// Is cancelled when somebody sets the wall clock, and at resume.
fn wall_timer() -> io::Result<Source> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let once = Expiration::OneShot(TimeSpec::from_duration(now + FAR));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer(ClockId::CLOCK_REALTIME, once, flags)
}

fn timer(clock: ClockId, when: Expiration, flags: TimerSetTimeFlags) -> io::Result<Source> {
    let timer = TimerFd::new(clock, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    timer.set(when, flags)?;
    source(timer.into())
}

#[expect(
    deprecated,
    reason = "its unsoundness is of types that change their descriptor, not of \
    an owned one, and the function in its place is unsafe to call"
)]
fn source(descriptor: OwnedFd) -> io::Result<Source> {
    AsyncFd::new(descriptor)
}

/// A socket on which the kernel tells of links, addresses, routes and rules.
fn routes() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = AddressFamily::Netlink;
    let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Waits until `source` is readable and reads what is there: only that it came matters.
async fn take(source: &Source, mut read: impl FnMut(&OwnedFd) -> nix::Result<usize>) {
    // An error here is the runtime's end.
    let Ok(mut ready) = source.readable().await else { return pending().await };
    for _ in 0..READS_MOST {
        match read(source.get_ref()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                return;
            }
            // A set clock (ECANCELED) or too much news at once (ENOBUFS): both are news.
            Err(_) => return,
        }
    }
}
