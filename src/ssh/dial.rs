//! Opens the TCP connection: names, several addresses raced (RFC 8305), a fresh try beside a
//! stuck one.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    ask::Stage,
    observe::{Fact, Observer},
    resolve::Hop,
};
use crate::{
    config::Family,
    tunnel::{Cause, Failure},
};

/// How long one address gets before the next one starts beside it (RFC 8305, section 8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// How long a connect may hang in TCP's retries before a fresh one starts beside it.
const FRESH_TRY: Duration = Duration::from_secs(1);
/// How many connects may hang at once.
const MOST_TRIES: usize = 8;

/// A TCP connection to the first hop, and how long its handshake took.
pub(crate) async fn dial(
    hop: &Hop,
    observer: &dyn Observer,
) -> Result<(TcpStream, Duration), Failure> {
    let mut last = None;
    for number in 0..hop.connection_attempts.max(1) {
        let started = Instant::now();
        if number > 0 {
            sleep_until(started + FRESH_TRY).await;
        }
        match dial_once(hop, observer).await {
            Ok(stream) => return Ok(stream),
            Err(failure) => last = Some(failure),
        }
    }
    Err(last.unwrap_or_else(|| timed_out(hop)))
}

/// One look-up and one race.
async fn dial_once(hop: &Hop, observer: &dyn Observer) -> Result<(TcpStream, Duration), Failure> {
    let deadline = Instant::now() + hop.connect_timeout;
    observer.stage(Stage::Resolving { host: hop.host.clone() });
    let addresses = look_up(hop, deadline).await?;
    observer.fact(Fact::Addresses(addresses.clone()));
    observer.stage(Stage::Connecting { host: hop.host.clone(), port: hop.port });
    let (stream, took) = race(hop, &addresses, deadline, observer).await?;
    stream.set_nodelay(true).map_err(|error| failed(hop, &error))?;
    Ok((stream, took))
}

/// The addresses of the host in the order in which they are tried.
async fn look_up(hop: &Hop, deadline: Instant) -> Result<Vec<SocketAddr>, Failure> {
    let place = (hop.host.as_str(), hop.port);
    let found = match timeout_at(deadline, tokio::net::lookup_host(place)).await {
        Ok(Ok(found)) => interleave(found.collect(), hop.family),
        Ok(Err(error)) => {
            let why = error.to_string();
            let why = why.rsplit(": ").next().unwrap_or(&why).to_lowercase();
            return Err(Failure::new(
                Cause::NameNotFound,
                format!("cannot find the host {}: {why}", hop.host),
            )
            .fix(format!("check the spelling, or that this works: getent hosts {}", hop.host)));
        }
        Err(_) => {
            return Err(Failure::new(
                Cause::NameNotFound,
                format!("looking up the host {} took too long", hop.host),
            ));
        }
    };
    if found.is_empty() {
        return Err(Failure::new(
            Cause::NameNotFound,
            format!("the host {} has no address of the family asked for", hop.host),
        )
        .fix("leave out -4, -6 or AddressFamily"));
    }
    Ok(found)
}

/// Keeps the wanted family and alternates between families, beginning with the resolver's first.
fn interleave(found: Vec<SocketAddr>, family: Family) -> Vec<SocketAddr> {
    let wanted = |address: &SocketAddr| match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    };
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in found.into_iter().filter(wanted) {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let leads_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        unique.into_iter().partition(|address| address.is_ipv6() == leads_v6);
    let mut second = second.into_iter();
    let mut mixed: Vec<SocketAddr> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    mixed.extend(second);
    mixed
}

/// The first connection that any address grants before the deadline.
async fn race(
    hop: &Hop,
    addresses: &[SocketAddr],
    deadline: Instant,
    observer: &dyn Observer,
) -> Result<(TcpStream, Duration), Failure> {
    // Dropping the set ends the losers.
    let mut tries: JoinSet<(SocketAddr, Duration, io::Result<TcpStream>)> = JoinSet::new();
    let mut untried = addresses.iter().copied();
    let mut stuck: Vec<SocketAddr> = Vec::new();
    let mut again = addresses.iter().copied().cycle();
    let mut worst: Option<io::Error> = None;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            Some(joined) = tries.join_next() => {
                let Ok((address, took, outcome)) = joined else { continue };
                match outcome {
                    Ok(stream) => {
                        observer.fact(Fact::Connected { address, took });
                        return Ok((stream, took));
                    }
                    Err(error) => {
                        observer.fact(Fact::NotConnected { address, why: plain(&error) });
                        stuck.retain(|other| *other != address);
                        worst = Some(more_telling(worst, error));
                        next = Instant::now();
                    }
                }
            }
            () = sleep_until(next), if tries.len() < MOST_TRIES => {
                let fresh = untried.next();
                // Only an address that has not answered at all is worth a second try.
                let address = fresh.or_else(|| {
                    again.by_ref().take(addresses.len()).find(|other| stuck.contains(other))
                });
                if let Some(address) = address {
                    stuck.push(address);
                    tries.spawn(connect(address));
                }
                next = Instant::now() + if untried.len() > 0 { NEXT_ADDRESS } else { FRESH_TRY };
            }
            () = sleep_until(deadline) => {
                return Err(worst.map_or_else(|| timed_out(hop), |error| failed(hop, &error)));
            }
        }
        if tries.is_empty() && untried.len() == 0 {
            return Err(worst.map_or_else(|| timed_out(hop), |error| failed(hop, &error)));
        }
    }
}

async fn connect(address: SocketAddr) -> (SocketAddr, Duration, io::Result<TcpStream>) {
    let started = Instant::now();
    let outcome = TcpStream::connect(address).await;
    (address, started.elapsed(), outcome)
}

/// Which of two errors says more about the host: a refusal beats silence beats a missing route.
fn more_telling(before: Option<io::Error>, now: io::Error) -> io::Error {
    let rank = |error: &io::Error| {
        [Cause::NoRoute, Cause::ConnectTimedOut, Cause::Refused]
            .iter()
            .position(|cause| *cause == cause_of(error))
    };
    match before {
        Some(before) if rank(&before) > rank(&now) => before,
        Some(_) | None => now,
    }
}

fn cause_of(error: &io::Error) -> Cause {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        PermissionDenied, TimedOut,
    };
    let kind = error.kind();
    if kind == ConnectionRefused {
        Cause::Refused
    } else if kind == TimedOut {
        Cause::ConnectTimedOut
    } else if [AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied]
        .contains(&kind)
    {
        Cause::NoRoute
    } else {
        Cause::LinkLost
    }
}

/// What a failed connect means.
fn failed(hop: &Hop, error: &io::Error) -> Failure {
    let place = hop.place();
    let cause = cause_of(error);
    if cause == Cause::ConnectTimedOut {
        return timed_out(hop);
    }
    let (what, fix) = if cause == Cause::Refused {
        (
            format!("{place} refused the connection: no SSH server listens there"),
            "check the port (-p), or start the SSH server over there",
        )
    } else if cause == Cause::NoRoute {
        (
            format!("this machine has no route to {place}: {}", plain(error)),
            "check the network of this machine",
        )
    } else {
        (
            format!("cannot connect to {place}: {}", plain(error)),
            "look into the SSH server's log over there",
        )
    };
    Failure::new(cause, what).fix(fix)
}

fn timed_out(hop: &Hop) -> Failure {
    Failure::new(
        Cause::ConnectTimedOut,
        format!("{} did not answer within {} s", hop.place(), hop.connect_timeout.as_secs()),
    )
    .fix("check the address, the firewall and that the host is up")
}

/// An error of the operating system without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
