//! Waits for an instant with one wake-up.
//!
//! The runtime's own timer looks at a far instant up to three times, each time more closely; a
//! tunnel that nobody uses pays for that all day. Here the kernel counts (timerfd_create(2)).

use std::time::Instant;

use tokio::time::sleep_until;

/// One timer, set again and again.
pub(super) struct Alarm {
    /// `None` where the runtime's timer does: elsewhere, and where tests stop the clock.
    #[cfg(target_os = "linux")]
    timer: Option<kernel::Timer>,
}

impl Alarm {
    /// A timer that is not set; wants a runtime.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: if cfg!(test) { None } else { kernel::Timer::new().ok() },
        }
    }

    /// Waits until `instant`. May be dropped and called again, with another one.
    pub(super) async fn ring_at(&mut self, instant: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &mut self.timer
            && timer.ring_at(instant).await.is_ok()
        {
            return;
        }
        sleep_until(instant.into()).await;
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    //! A timer of the kernel's.

    use std::{
        io,
        os::fd::OwnedFd,
        time::{Duration, Instant},
    };

    use rustix::{
        io::read,
        time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        },
    };
    use tokio::io::unix::AsyncFd;

    /// A descriptor that is readable once its time has come.
    pub(super) struct Timer {
        descriptor: AsyncFd<OwnedFd>,
        set: Option<Instant>,
    }

    impl Timer {
        /// One that is not set.
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self { descriptor: source(descriptor)?, set: None })
        }

        /// Waits until `instant`; fails if the kernel lets it down.
        pub(super) async fn ring_at(&mut self, instant: Instant) -> io::Result<()> {
            loop {
                let left = instant.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                if self.set != Some(instant) {
                    self.set(left)?;
                    self.set = Some(instant);
                }
                let mut ready = self.descriptor.readable().await?;
                // Only that it rang matters; after a change it may have nothing to say.
                if read(self.descriptor.get_ref(), &mut [0; 8]).is_ok() {
                    self.set = None;
                }
                ready.clear_ready();
            }
        }

        fn set(&self, left: Duration) -> io::Result<()> {
            let once = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec::try_from(left).map_err(io::Error::other)?,
            };
            let descriptor = self.descriptor.get_ref();
            timerfd_settime(descriptor, TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }
    }

    #[expect(
        deprecated,
        reason = "its unsoundness is of types that change their descriptor, not of \
        an owned one, and the function in its place is unsafe to call"
    )]
    fn source(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::new(descriptor)
    }

    #[cfg(test)]
    mod tests {
        use tokio::time::timeout;

        use super::*;

        const LIMIT: Duration = Duration::from_secs(20);

        #[tokio::test]
        async fn rings_when_its_time_has_come_and_not_before() {
            let mut timer = Timer::new().unwrap();
            for span in [0, 5, 1].map(Duration::from_millis) {
                let instant = Instant::now() + span;
                timeout(LIMIT, timer.ring_at(instant)).await.expect("it rings").unwrap();
                assert!(Instant::now() >= instant);
            }
        }

        #[tokio::test]
        async fn may_be_set_anew_while_it_runs() {
            let mut timer = Timer::new().unwrap();
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                biased;
                _ = timer.ring_at(far) => panic!("too early"),
                () = tokio::task::yield_now() => {}
            }
            let near = Instant::now() + Duration::from_millis(5);
            timeout(LIMIT, timer.ring_at(near)).await.expect("it rings").unwrap();
        }
    }
}
