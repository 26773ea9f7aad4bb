//! A TCP path that can be frozen, thawed, slow, and cut at any moment.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::moment::{Direction, Lookout, Moment};

/// Parts on their way through a slow path.
const UNDER_WAY: usize = 256;

/// A port that leads to another one, until it is told not to.
pub(crate) struct Freezer {
    port: u16,
    path: Arc<Path>,
}

struct Path {
    /// How long each byte is under way.
    delay: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frozen: bool,
    ended: bool,
    streams: Vec<TcpStream>,
    /// How often all was cut.
    cuts: u64,
    /// What happens to the next connection.
    next: Option<(Moment, Fate)>,
    /// Whether the next part from the server is torn in two.
    torn: bool,
    accepted: u64,
}

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The connection is closed on both sides.
    Cut,
    /// Nothing passes any more in this direction.
    Stall,
}

impl Freezer {
    /// Leads to `port` on loopback.
    pub(crate) fn before(port: u16) -> Self {
        Self::slow(port, Duration::ZERO)
    }

    /// The same with bytes that are under way for `delay`, in each direction.
    pub(crate) fn slow(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the freezer");
        let own = listener.local_addr().expect("its address").port();
        let path = Arc::new(Path { delay, state: Mutex::default(), changed: Condvar::default() });
        let accepting = Arc::clone(&path);
        thread::spawn(move || accept(&listener, port, &accepting));
        Self { port: own, path }
    }

    /// The port to dial.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections have come so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.path.state().accepted
    }

    /// From now on nothing passes; connections stay open.
    pub(crate) fn freeze(&self) {
        self.path.state().frozen = true;
    }

    /// Lets everything pass that was held, and what comes.
    pub(crate) fn thaw(&self) {
        self.path.state().frozen = false;
        self.path.changed.notify_all();
    }

    /// Closes the connections that are open now.
    pub(crate) fn cut(&self) {
        let mut state = self.path.state();
        state.cuts += 1;
        for stream in state.streams.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        self.path.changed.notify_all();
    }

    /// Closes the next connection at a moment of it.
    pub(crate) fn cut_next(&self, moment: Moment) {
        self.path.state().next = Some((moment, Fate::Cut));
    }

    /// Lets nothing pass from a moment of the next connection on.
    pub(crate) fn stall_next(&self, moment: Moment) {
        self.path.state().next = Some((moment, Fate::Stall));
    }

    /// Passes half of what the server says next, and closes its connection then.
    pub(crate) fn tear(&self) {
        self.path.state().torn = true;
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.path.state().ended = true;
        self.cut();
        self.thaw();
        // Wakes the accepting thread, which then sees that it has ended.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Path {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while frozen; `false` when the path has ended.
    fn passes(&self) -> bool {
        let waited = self.changed.wait_while(self.state(), |state| state.frozen && !state.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Waits until everything is cut.
    fn stalls(&self) {
        let state = self.state();
        let cuts = state.cuts;
        let waited = self.changed.wait_while(state, |state| state.cuts == cuts && !state.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn accept(listener: &TcpListener, port: u16, path: &Arc<Path>) {
    for near in listener.incoming().map_while(Result::ok) {
        if path.state().ended {
            return;
        }
        path.state().accepted += 1;
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let fate = path.state().next.take();
        for (from, to, direction) in
            [(&near, &far, Direction::FromClient), (&far, &near, Direction::FromServer)]
        {
            let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
            else {
                continue;
            };
            path.state().streams.push(kept);
            let fate = fate.map(|(moment, fate)| (Lookout::new(moment, direction), fate));
            let way = Way { from, to, direction, fate, path: Arc::clone(path) };
            thread::spawn(move || way.copy());
        }
    }
}

/// One direction of one connection.
struct Way {
    from: TcpStream,
    to: TcpStream,
    direction: Direction,
    fate: Option<(Lookout, Fate)>,
    path: Arc<Path>,
}

impl Way {
    fn copy(mut self) {
        let Ok(to) = self.to.try_clone() else { return };
        let mut sink = Sink::of(to, self.path.delay);
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = self.from.read(&mut buffer) {
            let part = buffer.get(..count).unwrap_or_default();
            let (part, fate) = self.judge(part);
            let passed = self.path.passes() && sink.write(part);
            match fate {
                None if passed => {}
                None => break,
                Some(Fate::Cut) => {
                    drop(self.to.shutdown(Shutdown::Both));
                    drop(self.from.shutdown(Shutdown::Both));
                    return;
                }
                Some(Fate::Stall) => {
                    self.path.stalls();
                    return;
                }
            }
        }
        self.path.passes();
        if self.path.delay.is_zero() {
            drop(self.to.shutdown(Shutdown::Write));
        }
    }

    /// What of a part passes, and what happens then.
    fn judge<'a>(&mut self, part: &'a [u8]) -> (&'a [u8], Option<Fate>) {
        let torn =
            self.direction == Direction::FromServer && std::mem::take(&mut self.path.state().torn);
        if torn {
            return (part.get(..part.len() / 2).unwrap_or_default(), Some(Fate::Cut));
        }
        let Some((lookout, fate)) = &mut self.fate else { return (part, None) };
        match lookout.find(part) {
            Some(count) => (part.get(..count).unwrap_or_default(), Some(*fate)),
            None => (part, None),
        }
    }
}

/// Where parts go: out at once, or to a thread that waits with each.
enum Sink {
    Now(TcpStream),
    Later(Duration, mpsc::SyncSender<(Instant, Vec<u8>)>),
}

impl Sink {
    fn of(mut to: TcpStream, delay: Duration) -> Self {
        if delay.is_zero() {
            return Self::Now(to);
        }
        let (parts, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
        thread::spawn(move || {
            for (at, part) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                if to.write_all(&part).is_err() {
                    return;
                }
            }
            drop(to.shutdown(Shutdown::Write));
        });
        Self::Later(delay, parts)
    }

    /// `false` if the other side is gone.
    fn write(&mut self, part: &[u8]) -> bool {
        match self {
            Self::Now(to) => to.write_all(part).is_ok(),
            Self::Later(delay, parts) => {
                parts.send((Instant::now() + *delay, part.to_vec())).is_ok()
            }
        }
    }
}
