//! A TCP path that can be frozen, thawed and cut.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// A port that leads to another one, until it is told not to.
pub(crate) struct Freezer {
    port: u16,
    path: Arc<Path>,
}

#[derive(Default)]
struct Path {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frozen: bool,
    ended: bool,
    streams: Vec<TcpStream>,
}

impl Freezer {
    /// Leads to `port` on loopback.
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the freezer");
        let own = listener.local_addr().expect("its address").port();
        let path = Arc::new(Path::default());
        let accepting = Arc::clone(&path);
        thread::spawn(move || accept(&listener, port, &accepting));
        Self { port: own, path }
    }

    /// The port to dial.
    pub(crate) fn port(&self) -> u16 {
        self.port
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
        for stream in self.path.state().streams.drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
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
}

fn accept(listener: &TcpListener, port: u16, path: &Arc<Path>) {
    for near in listener.incoming().map_while(Result::ok) {
        if path.state().ended {
            return;
        }
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
            else {
                continue;
            };
            path.state().streams.push(kept);
            let path = Arc::clone(path);
            thread::spawn(move || copy(from, to, &path));
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, path: &Path) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let passed =
            path.passes() && buffer.get(..count).is_some_and(|part| to.write_all(part).is_ok());
        if !passed {
            break;
        }
    }
    path.passes();
    drop(to.shutdown(Shutdown::Write));
}
