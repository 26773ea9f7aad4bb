//! A service that sends back what it gets, at a port or at a socket; and who asks it.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use super::net::{dial, listen};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts one at a fresh port of loopback; it ends with the process.
pub(crate) fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    serve(listener);
    port
}

/// Starts one at a port.
pub(crate) fn echo_at(port: u16) {
    serve(listen(port));
}

fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || send_back(&stream, &stream, || stream.shutdown(Shutdown::Write)));
        }
    });
}

/// Starts one at a socket.
pub(crate) fn echo_socket(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || send_back(&stream, &stream, || stream.shutdown(Shutdown::Write)));
        }
    });
}

fn send_back(mut from: impl Read, mut to: impl Write, end: impl Fn() -> io::Result<()>) {
    if io::copy(&mut from, &mut to).is_ok() {
        // Whoever asked may have gone.
        drop(end());
    }
}

/// Whether a service behind a port sends back what it gets, and ends after that.
pub(crate) fn echoes(port: u16) -> bool {
    dial(port, LIMIT).is_ok_and(|stream| sends_back(&stream))
}

/// The same of a service at any address.
pub(crate) fn echoes_over(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, LIMIT).is_ok_and(|stream| {
        drop(stream.set_read_timeout(Some(LIMIT)));
        sends_back(&stream)
    })
}

fn sends_back(stream: &TcpStream) -> bool {
    is_sent_back(stream, stream, || stream.shutdown(Shutdown::Write)).is_ok_and(|same| same)
}

/// The same behind a socket.
pub(crate) fn echoes_at(path: &Path) -> bool {
    UnixStream::connect(path).is_ok_and(|stream| {
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        is_sent_back(&stream, &stream, || stream.shutdown(Shutdown::Write)).is_ok_and(|same| same)
    })
}

fn is_sent_back(
    mut from: impl Read,
    mut to: impl Write,
    end: impl Fn() -> io::Result<()>,
) -> io::Result<bool> {
    to.write_all(b"there and back")?;
    end()?;
    let mut text = String::new();
    from.read_to_string(&mut text)?;
    Ok(text == "there and back")
}
