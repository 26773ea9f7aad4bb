//! A TCP path that counts what passes, and may be long, strand what it carries, or turn callers away.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt::Linger},
};

/// What is read at once, bytes.
const PART: usize = 64 * 1024;
/// Parts that may be under way in one direction of a long path: 256 MiB, so that the time they take
/// bounds nothing.
const UNDER_WAY: usize = 4096;

/// A port that leads to another one.
pub(crate) struct Meter {
    port: u16,
    way: Arc<Way>,
}

struct Way {
    to: u16,
    delay: Duration,
    passed: AtomicU64,
    callers: AtomicU64,
    away: AtomicBool,
    ended: AtomicBool,
    streams: Mutex<Vec<Carried>>,
}

/// One connection: both of its sockets, and whether it still carries anything.
struct Carried {
    sockets: [TcpStream; 2],
    stranded: Arc<AtomicBool>,
}

impl Meter {
    /// Leads to `port` on loopback.
    pub(crate) fn before(port: u16) -> Self {
        Self::long(port, Duration::ZERO)
    }

    /// The same, and each byte takes `delay` one way; how many pass at once is not bounded.
    pub(crate) fn long(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the meter");
        let own = listener.local_addr().expect("its address").port();
        let way = Arc::new(Way {
            to: port,
            delay,
            passed: AtomicU64::new(0),
            callers: AtomicU64::new(0),
            away: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let accepting = Arc::clone(&way);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port: own, way }
    }

    /// The port to dial.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that have passed, both ways.
    pub(crate) fn passed(&self) -> u64 {
        self.way.passed.load(Ordering::Relaxed)
    }

    /// Connections that have been made to it.
    pub(crate) fn callers(&self) -> u64 {
        self.way.callers.load(Ordering::Relaxed)
    }

    /// From now on whoever calls is counted and reset at once.
    pub(crate) fn turn_away(&self) {
        self.way.away.store(true, Ordering::Relaxed);
    }

    /// The connections that are open now carry nothing any more, and nobody is told; later ones are
    /// carried as ever.
    pub(crate) fn strand(&self) {
        self.way.streams().iter().for_each(|it| it.stranded.store(true, Ordering::Relaxed));
    }

    /// Closes the callers' ends of the connections that are open now; the far ends notice nothing
    /// before [`bury`](Self::bury).
    pub(crate) fn hang_up(&self) {
        for carried in self.way.streams().iter() {
            carried.stranded.store(true, Ordering::Relaxed);
            let [near, _] = &carried.sockets;
            drop(near.shutdown(Shutdown::Both));
        }
    }

    /// Closes the connections that are open now.
    pub(crate) fn cut(&self) {
        self.way.streams().drain(..).for_each(Carried::close);
    }

    /// Closes what is left of the connections that carry nothing any more.
    pub(crate) fn bury(&self) {
        let is_dead = |it: &mut Carried| it.stranded.load(Ordering::Relaxed);
        self.way.streams().extract_if(.., is_dead).for_each(Carried::close);
    }
}

impl Carried {
    fn close(self) {
        self.sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.way.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the accepting thread, which then sees that it has ended.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

impl Way {
    fn streams(&self) -> MutexGuard<'_, Vec<Carried>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection; `None` if one of its sockets cannot be held.
    fn note(&self, near: &TcpStream, far: &TcpStream) -> Option<Arc<AtomicBool>> {
        let stranded = Arc::default();
        let sockets = [near.try_clone().ok()?, far.try_clone().ok()?];
        let mut streams = self.streams();
        // Connections come and go by the thousand; those that ended are nobody's peer any more.
        streams.retain(|it| it.sockets.iter().any(|socket| socket.peer_addr().is_ok()));
        streams.push(Carried { sockets, stranded: Arc::clone(&stranded) });
        Some(stranded)
    }
}

fn accept(listener: &TcpListener, way: &Arc<Way>) {
    for near in listener.incoming().map_while(Result::ok) {
        if way.ended.load(Ordering::Relaxed) {
            return;
        }
        way.callers.fetch_add(1, Ordering::Relaxed);
        if way.away.load(Ordering::Relaxed) {
            // Closed with the wish to linger for no time, it is reset.
            setsockopt(&near, Linger, &linger { l_onoff: 1, l_linger: 0 }).expect("lingering");
            continue;
        }
        let way = Arc::clone(way);
        thread::spawn(move || lead(&near, &way));
    }
}

/// Leads one caller to the far port; on a long path it is seen there as late as its bytes.
fn lead(near: &TcpStream, way: &Arc<Way>) {
    thread::sleep(way.delay);
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, way.to)) else { return };
    drop((near.set_nodelay(true), far.set_nodelay(true)));
    let Some(stranded) = way.note(near, &far) else { return };
    for (from, to) in [(near, &far), (&far, near)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (way, stranded) = (Arc::clone(way), Arc::clone(&stranded));
        thread::spawn(move || carry(from, to, &way, &stranded));
    }
}

/// Carries one direction; the end of one is the end of the other's writer.
fn carry(mut from: TcpStream, mut to: TcpStream, way: &Way, stranded: &AtomicBool) {
    let mut pass = |part: &[u8]| {
        if !stranded.load(Ordering::Relaxed) {
            way.passed.fetch_add(part.len() as u64, Ordering::Relaxed);
            return to.write_all(part).is_ok();
        }
        true
    };
    if way.delay.is_zero() {
        let mut buffer = vec![0; PART];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !buffer.get(..count).is_some_and(&mut pass) {
                break;
            }
        }
    } else {
        let (sender, arriving) = mpsc::sync_channel(UNDER_WAY);
        let delay = way.delay;
        thread::spawn(move || send_off(from, delay, &sender));
        for (at, part) in arriving {
            thread::sleep(Instant::saturating_duration_since(&at, Instant::now()));
            if !pass(&part) {
                break;
            }
        }
    }
    if !stranded.load(Ordering::Relaxed) {
        drop(to.shutdown(Shutdown::Write));
    }
}

/// Reads what comes, and says when it arrives.
fn send_off(mut from: TcpStream, delay: Duration, to: &mpsc::SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; PART];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let part = buffer.get(..count).map(<[u8]>::to_vec).unwrap_or_default();
        if to.send((Instant::now() + delay, part)).is_err() {
            return;
        }
    }
}
