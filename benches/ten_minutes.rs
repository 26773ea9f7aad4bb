//! What an idle tunnel costs in ten minutes, and what is dialled in ten minutes where nothing can
//! come of it: all at the same time.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::Duration,
};

use nix::sys::socket::{Backlog, listen};

use crate::preload::library;
use crate::side_by_side::{
    Goal, Samples, Table, first_line, noticing::wait_until_live, rounds, say,
};
use crate::support::{
    Home, Meter, OurGateway, Peer, Program, ReferenceGateway, Run, Sshd, answers, free_port,
    openclaw, present, reference_version, ssh_forward_by, switches, wait_until, way_in,
};

/// How long everything is left alone before anything is counted: the gateway has said by then what
/// it says at its start, and the tunnel has been proved.
const CALM: Duration = Duration::from_secs(90);
const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh, Peer::Autossh, Peer::OpenClaw]) {
        return ExitCode::SUCCESS;
    }
    let minutes = rounds(10);
    let (idle, mut lost) = (Idle::start(), Lost::start());
    thread::sleep(CALM);
    let before = idle.spent();
    lost.lose_all();
    for _ in 0..minutes {
        thread::sleep(MINUTE);
    }
    let spent = idle.spent().since(&before);
    let dialled = lost.dialled();

    #[expect(clippy::cast_precision_loss, reason = "a few minutes")]
    let minutes = minutes as f64;
    let one = |value: f64| Samples::of([value]);
    let name = "autossh";
    let peers = [
        ("OpenClaw", reference_version()),
        ("autossh", first_line("autossh", &["-V"])),
        ("ssh", first_line("ssh", &["-V"])),
    ];
    let lines = spent.because_of_us();
    lines.iter().for_each(|line| say(&format!("the gateway said: {line}")));
    Table::new("ten_minutes", &peers)
        .alone("minutes measured", "10 for the goals", &one(minutes))
        .alone(
            "an idle tunnel, bytes both ways",
            "KB an hour",
            &one(spent.bytes / 1000.0 * 60.0 / minutes),
        )
        .goal(Goal::EachAtMost(300.0))
        .alone("its supervisor's wake-ups", "a minute", &one(spent.wakes / minutes))
        .goal(Goal::EachAtMost(15.0))
        .alone("lines in the OpenClaw gateway's log", "because of us", &one(lines.len() as f64))
        .goal(Goal::EachAtMost(0.0))
        .compare(
            "connections to a server that refuses the key",
            "in all",
            &one(dialled.refused),
            (name, &one(dialled.refused_theirs)),
        )
        .goal(Goal::EachAtMost(1.0))
        .compare(
            "connections to one that resets them",
            "in all",
            &one(dialled.reset),
            (name, &one(dialled.reset_theirs)),
        )
        .goal(Goal::EachAtMost(40.0))
        .alone("dials to a closed port", "in all", &one(dialled.closed))
        .goal(Goal::EachAtMost(40.0))
        .alone("dials into a black hole", "in all", &one(dialled.hole))
        .goal(Goal::EachAtMost(40.0))
        .print()
}

/// One tunnel to OpenClaw's gateway that nobody uses.
struct Idle {
    laptop: Home,
    way: Meter,
    _sshd: Sshd,
    gateway: ReferenceGateway,
    /// One that nobody reaches: what it says, OpenClaw says of itself.
    untouched: ReferenceGateway,
}

/// What it has taken so far.
struct Spent {
    bytes: f64,
    wakes: f64,
    lines: Vec<String>,
    /// What the gateway that nobody reaches said.
    lines_untouched: Vec<String>,
}

impl Idle {
    fn start() -> Self {
        let gateway = ReferenceGateway::start();
        let untouched = ReferenceGateway::start_as("untouched");
        let (sshd, laptop) = (Sshd::start(&[]), Home::new());
        let way = Meter::before(sshd.port());
        let token = laptop.write("token", ReferenceGateway::TOKEN);
        connecting(&laptop, "idle", &sshd, &way, gateway.port(), &token).run().exits(0);
        wait_until_live(&laptop, "idle");
        Self { laptop, way, _sshd: sshd, gateway, untouched }
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn spent(&self) -> Spent {
        let supervisor = self.laptop.supervisor().expect("a supervisor");
        Spent {
            bytes: self.way.passed() as f64,
            wakes: switches(supervisor) as f64,
            lines: lines_of(&self.gateway),
            lines_untouched: lines_of(&self.untouched),
        }
    }
}

impl Spent {
    fn since(mut self, before: &Self) -> Self {
        self.bytes -= before.bytes;
        self.wakes -= before.wakes;
        self.lines.drain(..before.lines.len());
        self
    }

    /// What a gateway said because of the tunnel: not what the other one says as well, at any time.
    fn because_of_us(&self) -> Vec<&String> {
        self.lines.iter().filter(|line| !self.lines_untouched.contains(line)).collect()
    }
}

/// The lines that a gateway has logged, without colours and times.
fn lines_of(gateway: &ReferenceGateway) -> Vec<String> {
    let log = gateway.program().log();
    let plain = |line: &str| {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        let text: String =
            parts.filter_map(|part| part.split_once('m')).map(|(_, it)| it).collect();
        let text = first + &text;
        text.split_once(' ').map(|(_, said)| said.to_owned()).unwrap_or(text)
    };
    log.lines().map(plain).collect()
}

/// Tunnels that were live, and whose servers then do not let them back.
struct Lost {
    laptop: Home,
    gateway: OurGateway,
    _far: Home,
    _sshd: Sshd,
    refusing: Sshd,
    ways: Ways,
    /// The ports of the closed way and of the black hole, and how often the kernel was asked for
    /// each before they were lost: nothing there could count who calls.
    lost_ports: [u16; 2],
    asked_before: [usize; 2],
    _autossh: [Program; 2],
    hole: Option<BlackHole>,
}

/// The ways to the servers; `None` once they are gone.
struct Ways {
    refused: Meter,
    refused_theirs: Meter,
    reset: Meter,
    reset_theirs: Meter,
    closed: Option<Meter>,
    hole: Option<Meter>,
    /// Connections over the four that count, before they were lost.
    before: [u64; 4],
}

/// How often each was dialled since.
struct Dialled {
    refused: f64,
    refused_theirs: f64,
    reset: f64,
    reset_theirs: f64,
    closed: f64,
    hole: f64,
}

impl Lost {
    fn start() -> Self {
        let far = Home::new();
        let gateway = OurGateway::start(&far);
        let (sshd, refusing, laptop) = (Sshd::start(&[]), Sshd::start(&[]), Home::new());
        let ways = Ways {
            refused: Meter::before(refusing.port()),
            refused_theirs: Meter::before(refusing.port()),
            reset: Meter::before(sshd.port()),
            reset_theirs: Meter::before(sshd.port()),
            closed: Some(Meter::before(sshd.port())),
            hole: Some(Meter::before(sshd.port())),
            before: [0; 4],
        };
        let (port, token) = (gateway.port(), gateway.token_file());
        let library = library(&laptop, "dials.c");
        let [closed, hole] =
            [&ways.closed, &ways.hole].map(|way| way.as_ref().expect("not lost yet"));
        let lost_ports = [closed.port(), hole.port()];
        for (name, sshd, way) in [
            ("refused", &refusing, &ways.refused),
            ("reset", &sshd, &ways.reset),
            ("closed", &sshd, closed),
            ("hole", &sshd, hole),
        ] {
            let run = connecting(&laptop, name, sshd, way, port, token);
            let run = run.env("LD_PRELOAD", &library).env("LAB_DIALS", laptop.path("dials"));
            run.run().exits(0);
            wait_until_live(&laptop, name);
        }
        let autossh = [(&refusing, &ways.refused_theirs), (&sshd, &ways.reset_theirs)];
        let autossh = autossh.map(|(sshd, way)| start_autossh(sshd, way, port));
        Self {
            laptop,
            gateway,
            _far: far,
            _sshd: sshd,
            refusing,
            ways,
            lost_ports,
            asked_before: [0; 2],
            _autossh: autossh,
            hole: None,
        }
    }

    /// From now on nobody is let in.
    fn lose_all(&mut self) {
        assert!(answers(self.gateway.port(), "/healthz"), "the gateway is not what fails");
        self.refusing.allow_nobody();
        self.ways.before = self.ways.callers();
        for way in [&self.ways.refused, &self.ways.refused_theirs] {
            way.cut();
        }
        for way in [&self.ways.reset, &self.ways.reset_theirs] {
            way.turn_away();
            way.cut();
        }
        self.asked_before = self.asked();
        assert!(self.asked_before.iter().all(|count| *count > 0), "what is dialled is noted");
        drop(self.ways.closed.take());
        let port = self.ways.hole.as_ref().map(Meter::port).expect("not lost yet");
        drop(self.ways.hole.take());
        self.hole = Some(BlackHole::at(port));
    }

    #[expect(clippy::cast_precision_loss, reason = "a few dials")]
    fn dialled(&self) -> Dialled {
        let mut calls = self.ways.callers();
        calls.iter_mut().zip(self.ways.before).for_each(|(calls, before)| *calls -= before);
        let [refused, refused_theirs, reset, reset_theirs] = calls.map(|calls| calls as f64);
        let mut asked = self.asked();
        asked.iter_mut().zip(self.asked_before).for_each(|(asked, before)| *asked -= before);
        let [closed, hole] = asked.map(|asked| asked as f64);
        Dialled { refused, refused_theirs, reset, reset_theirs, closed, hole }
    }

    /// How often the kernel was asked for a connection to the closed port and to the black hole.
    fn asked(&self) -> [usize; 2] {
        let noted = fs::read_to_string(self.laptop.path("dials")).expect("noted dials");
        self.lost_ports
            .map(|port| noted.lines().filter(|line| line.ends_with(&format!(" {port}"))).count())
    }
}

impl Ways {
    fn callers(&self) -> [u64; 4] {
        [&self.refused, &self.refused_theirs, &self.reset, &self.reset_theirs].map(Meter::callers)
    }
}

/// A port that answers nothing at all: its queue is full, so the kernel drops who calls.
struct BlackHole {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn at(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = wait_until("the port is free", LIMIT, || TcpListener::bind(address).ok());
        listen(&listener, Backlog::new(0).expect("a size")).expect("a queue of no length");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queue.push(stream);
        }
        Self { _listener: listener, _queue: queue }
    }
}

/// `remote connect` over `way`, complete.
fn connecting(
    laptop: &Home,
    name: &str,
    sshd: &Sshd,
    way: &Meter,
    gateway: u16,
    token: &std::path::Path,
) -> Run {
    sshd.know(&sshd.known_hosts_line(way.port()));
    openclaw(laptop)
        .args(["remote", "connect", "--batch", "--name", name])
        .args(way_in(way.port(), &sshd.key(), &sshd.known_hosts()))
        .args(["--local-port", &free_port().to_string()])
        .args(["--remote-port", &gateway.to_string()])
        .arg("--token-file")
        .arg(token)
        .arg(sshd.target())
}

fn start_autossh(sshd: &Sshd, way: &Meter, gateway: u16) -> Program {
    sshd.know(&sshd.known_hosts_line(way.port()));
    let port = free_port();
    let autossh = ssh_forward_by("autossh", &[], sshd, way.port(), &[(port, gateway)]);
    wait_until("autossh leads to the gateway", LIMIT, || answers(port, "/healthz").then_some(()));
    autossh
}
