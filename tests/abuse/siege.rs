//! A gateway under attack beside a calm crowd that keeps asking, and what the attack is held to.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

use crate::support::{Asked, Home, OurGateway, Wire, peak_bytes, resident_bytes};

/// How long any wait here may take: longer than the gateway's own 15 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What an attack may cost the gateway, at its worst moment and beyond what it had before.
pub(crate) const MEMORY: u64 = 32 << 20;

/// How many clients are in the calm crowd.
const CROWD: usize = 8;
/// How many requests each of them has under way at any time.
const IN_FLIGHT: usize = 4;
/// How many answers each of them gets while an attack lasts, at the least.
const ANSWERS: u64 = 40;
/// How long any of them may wait for its next answer, also where this machine has much else to do.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A gateway under attack, with a calm crowd beside the attacker.
pub(crate) struct Siege {
    pub(crate) gateway: OurGateway,
    home: Home,
    pub(crate) token: String,
    crowd: Vec<Calm>,
    before: u64,
}

/// One of the crowd.
struct Calm {
    answers: Arc<AtomicU64>,
    /// The longest that it waited from one answer to the next, microseconds.
    gap: Arc<AtomicU64>,
    /// Told of each answer.
    progress: Arc<Notify>,
    is_over: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Calm {
    /// Comes in and keeps asking; whatever goes wrong for it is the end of its task.
    async fn begin(port: u16, token: &str) -> Self {
        let mut wire = Wire::login(port, token).await.unwrap();
        let answers = Arc::new(AtomicU64::new(0));
        let gap = Arc::new(AtomicU64::new(0));
        let progress = Arc::new(Notify::new());
        let is_over = Arc::new(AtomicBool::new(false));
        let (counted, longest, told, over) =
            (Arc::clone(&answers), Arc::clone(&gap), Arc::clone(&progress), Arc::clone(&is_over));
        let task = tokio::spawn(async move {
            for _ in 0..IN_FLIGHT {
                wire.ask("health", json!({})).await.expect("a calm client");
            }
            let mut before = Instant::now();
            while !over.load(Ordering::Relaxed) {
                let answer = wire.answer().await.expect("a calm client");
                assert_eq!(answer["ok"], true, "{answer}");
                let waited = before.elapsed();
                before = Instant::now();
                longest.fetch_max(waited.as_micros().try_into().unwrap(), Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
                told.notify_one();
                wire.ask("health", json!({})).await.expect("a calm client");
            }
        });
        Self { answers, gap, progress, is_over, task }
    }

    fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Waits until it has had `wanted` answers.
    async fn has_had(&mut self, wanted: u64) {
        let (answers, progress) = (&self.answers, &self.progress);
        let wait = async {
            while answers.load(Ordering::Relaxed) < wanted {
                progress.notified().await;
            }
        };
        tokio::select! {
            waited = timeout(PATIENCE, wait) => waited.expect("the calm clients are answered"),
            ended = &mut self.task => panic!("a calm client ended: {ended:?}"),
        }
    }
}

impl Siege {
    /// Starts a gateway, and waits until its crowd is at work.
    pub(crate) async fn begin() -> Self {
        let home = Home::new();
        let gateway = OurGateway::start_bare(&home);
        let token = gateway.token();
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(Calm::begin(gateway.port(), &token).await);
        }
        for calm in &mut crowd {
            calm.has_had(ANSWERS).await;
            calm.answers.store(0, Ordering::Relaxed);
            calm.gap.store(0, Ordering::Relaxed);
        }
        let before = resident_bytes(gateway.program().pid()).unwrap();
        Self { gateway, home, token, crowd, before }
    }

    pub(crate) fn port(&self) -> u16 {
        self.gateway.port()
    }

    pub(crate) async fn open(&self) -> (Wire, Asked) {
        Wire::open(self.port()).await.unwrap()
    }

    pub(crate) async fn login(&self) -> Wire {
        Wire::login(self.port(), &self.token).await.unwrap()
    }

    /// Whether every one of the crowd has had its answers since the attack began: what is over in a
    /// moment is repeated until then.
    pub(crate) fn was_noticed_by_nobody(&self) -> bool {
        self.crowd.iter().all(|calm| calm.answers() >= ANSWERS)
    }

    /// Waits until every one of the crowd has had its answers, while the attack is still on.
    pub(crate) async fn goes_unnoticed(&mut self) {
        for calm in &mut self.crowd {
            calm.has_had(ANSWERS).await;
        }
    }

    /// The value of a series of `/metrics`; 0 where it is not there yet.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let all = self.metrics(series).await;
        all.into_iter().find(|(name, _)| name == series).map_or(0, |(_, value)| value)
    }

    /// Every series of `/metrics` that begins so, with its value.
    pub(crate) async fn metrics(&self, beginning: &str) -> Vec<(String, u64)> {
        let file = self.home.state().join("rs/metrics-token");
        let token = std::fs::read_to_string(file).unwrap();
        let head = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", token.trim());
        let text = asked(self.port(), "/metrics", &head).await;
        assert!(text.contains("# EOF"), "{text}");
        let series = text.lines().filter(|line| line.starts_with(beginning));
        let series = series.filter_map(|line| line.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.trim().parse().unwrap())).collect()
    }

    /// How much the gateway took at its worst moment beyond what it had before.
    pub(crate) fn grown(&self) -> u64 {
        peak_bytes(self.gateway.program().pid()).unwrap().saturating_sub(self.before)
    }

    /// The crowd was answered all the time without a long wait, a newcomer gets in, and memory is
    /// bounded.
    pub(crate) async fn end(self) {
        self.end_within(MEMORY).await;
    }

    /// The same of an attack that may cost `memory` bytes.
    pub(crate) async fn end_within(mut self, memory: u64) {
        let mut newcomer = self.login().await;
        assert_eq!(newcomer.call("health", json!({})).await.unwrap()["ok"], true);
        let grown = self.grown();
        assert!(grown < memory, "grown by {grown} bytes");
        self.goes_unnoticed().await;
        for calm in &mut self.crowd {
            // A wait that is still on counts as well.
            let answers = calm.answers();
            calm.has_had(answers + 1).await;
        }
        let gaps = self.crowd.iter().map(|calm| calm.gap.load(Ordering::Relaxed));
        let longest = Duration::from_micros(gaps.max().unwrap_or_default());
        eprintln!("the calm crowd never waited longer for an answer than {longest:?}");
        assert!(longest < LONGEST_GAP, "a calm client waited {longest:?} for its next answer");
        for calm in self.crowd {
            calm.is_over.store(true, Ordering::Relaxed);
            timeout(PATIENCE, calm.task).await.expect("it ends").expect("a calm client");
        }
    }
}

/// All of the answer to `GET path` with these lines in its head.
pub(crate) async fn asked(port: u16, path: &str, head: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Lets this process have as many descriptors as the system allows.
pub(crate) fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// A connection from an address of loopback of the caller's choice.
pub(crate) async fn from(address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// The series that counts what made no sense.
pub(crate) fn malformed(kind: &str) -> String {
    format!(r#"openclaw_gateway_malformed_total{{kind="{kind}"}}"#)
}

/// The series that counts who was turned away.
pub(crate) fn turned_away(reason: &str) -> String {
    format!(r#"openclaw_gateway_turned_away_total{{reason="{reason}"}}"#)
}

/// The series that counts who was refused at the login.
pub(crate) fn refused(reason: &str) -> String {
    format!(r#"openclaw_gateway_refused_total{{reason="{reason}"}}"#)
}
