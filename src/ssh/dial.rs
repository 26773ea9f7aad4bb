//! Opens the TCP connection: names, several addresses raced (RFC 8305), a fresh try beside a
//! stuck one.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    ask::Stage,
    near::Near,
    observe::{Fact, Observer},
    resolve::Hop,
};
use crate::{
    config::Family,
    tunnel::{Cause, Failure},
};

/// How long one address gets before the next one starts beside it (RFC 8305, section 8).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// How long a connect may hang in TCP's retries before a fresh one starts beside it, while somebody
/// waits.
const FRESH_TRY: Duration = Duration::from_secs(1);
/// How many connects may hang at once; the oldest makes room for the next.
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
    let found = look_up(hop, deadline).await?;
    observer.fact(Fact::Addresses(found.clone()));
    let near = Near::of(hop.bind.as_ref(), deadline).await?;
    let ways = ways(hop, &near, &found)?;
    observer.stage(Stage::Connecting { host: hop.host.clone(), port: hop.port });
    let (stream, took) = race(hop, &ways, deadline, observer).await?;
    stream.set_nodelay(true).map_err(|error| failed(hop, &error))?;
    Ok((stream, took))
}

/// One connection that may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    far: SocketAddr,
    /// The end of ours, if somebody chose one.
    near: Option<SocketAddr>,
    keep_alive: bool,
}

/// The ways to the addresses that the chosen end of ours can reach.
fn ways(hop: &Hop, near: &Near, found: &[SocketAddr]) -> Result<Vec<Way>, Failure> {
    let keep_alive = hop.tcp_keep_alive;
    let ways: Vec<Way> = found
        .iter()
        .filter_map(|far| Some(Way { far: *far, near: near.end_for(far)?, keep_alive }))
        .collect();
    if ways.is_empty() {
        return Err(Failure::new(
            Cause::NoRoute,
            format!("{} has no address of the kind that {near} has", hop.place()),
        )
        .fix("choose another BindAddress or BindInterface, or none"));
    }
    Ok(ways)
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
    ways: &[Way],
    deadline: Instant,
    observer: &dyn Observer,
) -> Result<(TcpStream, Duration), Failure> {
    // Dropping the set ends the losers.
    let mut tries: JoinSet<(Way, Duration, io::Result<TcpStream>)> = JoinSet::new();
    let mut untried = ways.iter().copied();
    let mut stuck = Stuck::default();
    let mut again = ways.iter().copied().cycle();
    let mut worst: Option<io::Error> = None;
    let mut next = Instant::now();
    loop {
        if tries.is_empty() && untried.len() == 0 {
            return Err(worst.map_or_else(|| timed_out(hop), |error| failed(hop, &error)));
        }
        tokio::select! {
            Some(joined) = tries.join_next() => {
                let Ok((way, took, outcome)) = joined else { continue };
                match outcome {
                    Ok(stream) => {
                        observer.fact(Fact::Connected { address: way.far, took });
                        return Ok((stream, took));
                    }
                    Err(error) => {
                        observer.fact(Fact::NotConnected { address: way.far, why: plain(&error) });
                        stuck.learn(way, &error);
                        worst = Some(more_telling(worst, error));
                        if untried.len() > 0 {
                            next = Instant::now();
                        }
                    }
                }
            }
            () = sleep_until(next) => {
                let fresh = untried.next();
                // Only an address that has not answered at all is worth a second try.
                let way = fresh.or_else(|| {
                    let mut again = again.by_ref().take(ways.len());
                    again.find(|way| stuck.holds(*way)).filter(|_| observer.is_awaited())
                });
                if let Some(way) = way {
                    stuck.push(way, tries.spawn(connect(way)));
                }
                next = Instant::now() + if untried.len() > 0 { NEXT_ADDRESS } else { FRESH_TRY };
            }
            () = sleep_until(deadline) => {
                return Err(worst.map_or_else(|| timed_out(hop), |error| failed(hop, &error)));
            }
        }
    }
}

/// The tries to addresses that have not answered, the oldest first.
#[derive(Default)]
struct Stuck(VecDeque<(Way, AbortHandle)>);

impl Stuck {
    /// Adds a try; the oldest makes room for it.
    fn push(&mut self, way: Way, one: AbortHandle) {
        if self.0.len() >= MOST_TRIES
            && let Some((_, oldest)) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back((way, one));
    }

    /// Whether nothing has answered on `way` yet.
    fn holds(&self, way: Way) -> bool {
        self.0.iter().any(|(other, _)| *other == way)
    }

    /// A try on `way` failed: ends the others there, which know less, if that was the address's
    /// answer. A missing route, a kernel that gives up waiting and a lack of descriptors are none.
    fn learn(&mut self, way: Way, error: &io::Error) {
        if cause_of(error) != Cause::Refused {
            return;
        }
        self.0.retain(|(other, older)| {
            let is_answered = *other == way;
            if is_answered {
                older.abort();
            }
            !is_answered
        });
    }
}

async fn connect(way: Way) -> (Way, Duration, io::Result<TcpStream>) {
    let started = Instant::now();
    let outcome = open(way).await;
    (way, started.elapsed(), outcome)
}

async fn open(way: Way) -> io::Result<TcpStream> {
    let socket = if way.far.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_keepalive(way.keep_alive)?;
    if let Some(near) = way.near {
        socket.bind(near)?;
    }
    socket.connect(way.far).await
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ssh::resolve::Bind;

    fn hop() -> Hop {
        Hop { connect_timeout: Duration::from_secs(5), ..Hop::example("box") }
    }

    fn silent(_: Stage) {}

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn way(far: SocketAddr) -> Way {
        Way { far, near: None, keep_alive: true }
    }

    /// A listener that answers no further connection, with those that fill its queue.
    async fn deaf(place: &str) -> (tokio::net::TcpListener, SocketAddr, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address(place)).unwrap();
        let listener = socket.listen(1).unwrap();
        let far = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        let brief = Duration::from_millis(100);
        while let Ok(stream) = tokio::time::timeout(brief, TcpStream::connect(far)).await {
            queue.push(stream.unwrap());
            assert!(queue.len() < 64, "the queue of a listener has no end");
        }
        (listener, far, queue)
    }

    /// Whether somebody waits.
    struct Awaited(bool);

    impl Observer for Awaited {
        fn stage(&self, _: Stage) {}

        fn is_awaited(&self) -> bool {
            self.0
        }
    }

    /// How many connects of this process to `far` hang. The kernel's table alone has those as well
    /// that live on for a moment in a child that another test has just forked.
    fn hanging(far: SocketAddr) -> usize {
        let SocketAddr::V4(v4) = far else { panic!("{far}") };
        let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(v4.ip().octets()), v4.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let hanging = lines.filter(|columns| columns[2] == remote && columns[3] == "02");
        let sockets: HashSet<String> =
            hanging.map(|columns| format!("socket:[{}]", columns[9])).collect();
        let ours = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        let ours: HashSet<String> = ours
            .filter_map(|entry| Some(entry.path().read_link().ok()?.display().to_string()))
            .collect();
        sockets.intersection(&ours).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_connect_is_joined_each_second_while_somebody_waits_and_only_then() {
        for (is_awaited, expected) in [(true, 4), (false, 1)] {
            let (_listener, stuck, _queue) = deaf("127.0.0.4:0").await;
            let (hop, ways, awaited) = (hop(), [way(stuck)], Awaited(is_awaited));
            let deadline = Instant::now() + Duration::from_secs(5);
            let racing = race(&hop, &ways, deadline, &awaited);
            let looking = async {
                tokio::time::sleep(Duration::from_millis(3500)).await;
                hanging(stuck)
            };
            let (failure, seen) = tokio::join!(racing, looking);
            assert_eq!(failure.unwrap_err().cause, Cause::ConnectTimedOut);
            assert_eq!(seen, expected, "awaited: {is_awaited}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_connects_are_bounded_and_the_last_is_always_fresh() {
        let (_listener, stuck, _queue) = deaf("127.0.0.5:0").await;
        let (hop, ways) = (hop(), [way(stuck)]);
        let deadline = Instant::now() + Duration::from_secs(30);
        let racing = race(&hop, &ways, deadline, &silent);
        let looking = async {
            tokio::time::sleep(Duration::from_millis(25_500)).await;
            hanging(stuck)
        };
        let (_, seen) = tokio::join!(racing, looking);
        assert_eq!(seen, MOST_TRIES);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_older_tries_to_the_same_address() {
        let (listener, stuck, queue) = deaf("127.0.0.6:0").await;
        let (hop, ways) = (hop(), [way(stuck)]);
        let deadline = Instant::now() + Duration::from_secs(30);
        let racing = race(&hop, &ways, deadline, &silent);
        let closing = async {
            tokio::time::sleep(Duration::from_millis(3500)).await;
            drop((listener, queue));
            // A child that another test has just forked has the listener for a moment as well, and
            // the stopped clock would be at the deadline before that is over.
            let refuses = |_| {
                let limit = Duration::from_millis(100);
                std::net::TcpStream::connect_timeout(&stuck, limit)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            };
            assert!((0..100).any(refuses), "the listener lives on");
        };
        let (failure, ()) = tokio::join!(racing, closing);
        assert_eq!(failure.unwrap_err().cause, Cause::Refused);
        // The clock is stopped: it moves on to the next try, and to the deadline if there is none.
        assert!(Instant::now() < deadline, "it waited for tries that nobody will answer");
    }

    #[tokio::test]
    async fn only_a_refusal_ends_the_older_tries_and_only_those_to_its_address() {
        let (one, another) = (way(address("127.0.0.1:1")), way(address("127.0.0.1:2")));
        let kinds = [
            (io::ErrorKind::TimedOut, false),
            (io::ErrorKind::HostUnreachable, false),
            // Too many open files.
            (io::ErrorKind::Other, false),
            (io::ErrorKind::ConnectionRefused, true),
        ];
        for (kind, ends) in kinds {
            let (mut tries, mut stuck) = (JoinSet::new(), Stuck::default());
            for way in [one, another, one] {
                stuck.push(way, tries.spawn(std::future::pending::<()>()));
            }
            stuck.learn(one, &kind.into());
            assert_eq!((stuck.holds(one), stuck.holds(another)), (!ends, true), "{kind}");
            for _ in 0..if ends { 2 } else { 0 } {
                assert!(tries.join_next().await.unwrap().unwrap_err().is_cancelled());
            }
            tokio::task::yield_now().await;
            assert!(tries.try_join_next().is_none(), "{kind} ended another");
        }
    }

    #[test]
    fn families_take_turns_and_the_resolver_chooses_the_first() {
        let found = ["[::1]:1", "[::2]:1", "[::1]:1", "1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1"];
        let found: Vec<SocketAddr> = found.iter().map(|text| address(text)).collect();
        let shown = |family| {
            let mixed = interleave(found.clone(), family);
            mixed.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(Family::Any), "::1 1.1.1.1 ::2 2.2.2.2 3.3.3.3");
        assert_eq!(shown(Family::V4), "1.1.1.1 2.2.2.2 3.3.3.3");
        assert_eq!(shown(Family::V6), "::1 ::2");
    }

    #[tokio::test]
    async fn an_address_may_name_its_zone() {
        let hop = Hop { host: "fe80::1%lo".to_owned(), ..hop() };
        let found = look_up(&hop, Instant::now() + hop.connect_timeout).await.unwrap();
        let zone = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(
            matches!(found.as_slice(), [SocketAddr::V6(v6)] if v6.scope_id() == zone),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn an_address_that_answers_wins_beside_one_that_is_stuck() {
        let (_listener, stuck, _queue) = deaf("127.0.0.2:0").await;
        let answering = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
        let far = answering.local_addr().unwrap();
        let started = Instant::now();
        let deadline = started + Duration::from_secs(5);
        let (stream, _) = race(&hop(), &[way(stuck), way(far)], deadline, &silent).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), far);
        assert!(started.elapsed() >= NEXT_ADDRESS, "the first address gets its moment");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn an_address_that_refuses_costs_no_wait_and_silence_ends_at_the_deadline() {
        let refused = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let closed = refused.local_addr().unwrap();
        drop(refused);
        let answering = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
        let far = answering.local_addr().unwrap();
        let started = Instant::now();
        let deadline = started + Duration::from_secs(5);
        race(&hop(), &[way(closed), way(far)], deadline, &silent).await.unwrap();
        assert!(started.elapsed() < NEXT_ADDRESS, "{:?}", started.elapsed());
        let (_listener, stuck, _queue) = deaf("127.0.0.2:0").await;
        let deadline = Instant::now() + Duration::from_millis(300);
        let failure = race(&hop(), &[way(stuck)], deadline, &silent).await.unwrap_err();
        assert_eq!(failure.cause, Cause::ConnectTimedOut);
    }

    #[tokio::test]
    async fn leaves_from_the_address_that_was_chosen() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = |bind: Bind| Hop {
            bind: Some(bind),
            host: "127.0.0.1".to_owned(),
            port,
            connection_attempts: 1,
            ..hop()
        };
        let dialled = dial(&from(Bind::Address("127.0.0.9".into())), &silent).await;
        assert_eq!(dialled.unwrap().0.local_addr().unwrap().ip().to_string(), "127.0.0.9");
        let dialled = dial(&from(Bind::Address("::1".into())), &silent).await;
        let failure = dialled.unwrap_err();
        assert_eq!(failure.cause, Cause::NoRoute);
        assert!(failure.message.contains("::1"), "{failure}");
        let failure = dial(&from(Bind::Interface("nosuch0".into())), &silent).await.unwrap_err();
        assert_eq!(failure.cause, Cause::NoRoute);
        assert!(failure.message.contains("nosuch0"), "{failure}");
        let dialled = dial(&from(Bind::Interface("lo".into())), &silent).await;
        assert_eq!(dialled.unwrap().0.local_addr().unwrap().ip().to_string(), "127.0.0.1");
    }
}
