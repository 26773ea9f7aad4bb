//! Ports, and the shortest HTTP client that can ask a gateway whether it is there.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A loopback port that nothing listens on, and that this process hands out once.
///
/// Below the range that systems take the ports of outgoing connections from.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(7, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Listens on such a port. A child that another test forks holds what is open here as well, until its
/// program begins.
pub(crate) fn listen(port: u16) -> TcpListener {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    wait_until("the port is free", Duration::from_secs(20), bind)
}

/// Whether something accepts connections on a loopback port.
pub(crate) fn listens(port: u16) -> bool {
    dial(port, Duration::from_secs(1)).is_ok()
}

/// Connects to a loopback port.
pub(crate) fn dial(port: u16, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// The status of `GET path` on a new connection to a loopback port.
pub(crate) fn status_of(port: u16, path: &str, limit: Duration) -> io::Result<u16> {
    let mut stream = dial(port, limit)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < 12 {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
        }
        head.extend(buffer.iter().take(count));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|word| word.get(..3)?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {head}")))
}

/// Whether `GET path` on a loopback port is answered with 200.
pub(crate) fn answers(port: u16, path: &str) -> bool {
    matches!(status_of(port, path, Duration::from_secs(2)), Ok(200))
}

/// Waits for something that announces itself in no other way, such as a file or another process.
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        // A twentieth of what has passed: quick things are found quickly, slow ones left in peace.
        let pause = start.elapsed() / 20;
        thread::sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(50)));
    }
}
