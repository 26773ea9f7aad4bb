//! Two sides measured in one run: samples, goals, a table for people, a JSON line for scripts.
#![allow(dead_code, reason = "each measurement uses a part of it")]
#![allow(clippy::print_stdout, reason = "the table is what a measurement is for")]

use std::{
    fmt,
    process::{Command, ExitCode},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::run_to_end;

pub(crate) mod noticing;

/// What was measured on one side, in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time in milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// Samples that are there already.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().collect())
    }

    /// Adds all of another side.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `share` (0 to 1) of the samples do not exceed.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        #[expect(clippy::cast_precision_loss, reason = "far fewer samples than 2^52")]
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The middle value.
    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// What a row has to keep; decided by its samples alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// The median of ours.
    MedianAtMost(f64),
    /// Every sample of ours.
    EachAtMost(f64),
    /// Our median divided by the peer's.
    RatioAtMost(f64),
    /// Our median divided by the peer's.
    RatioAtLeast(f64),
}

impl Goal {
    /// Whether the row keeps it; a row without samples keeps nothing.
    fn is_held_by(self, row: &Row) -> bool {
        match self {
            Self::MedianAtMost(bound) => row.ours.median() <= bound,
            Self::EachAtMost(bound) => row.ours.at(1.0) <= bound,
            Self::RatioAtMost(bound) => row.ratio().is_some_and(|ratio| ratio <= bound),
            Self::RatioAtLeast(bound) => row.ratio().is_some_and(|ratio| ratio >= bound),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MedianAtMost(bound) => write!(f, "median ≤ {}", figure(*bound)),
            Self::EachAtMost(bound) => write!(f, "each ≤ {}", figure(*bound)),
            Self::RatioAtMost(bound) => write!(f, "≤ {bound} × peer"),
            Self::RatioAtLeast(bound) => write!(f, "≥ {bound} × peer"),
        }
    }
}

/// A table of what was measured.
pub(crate) struct Table {
    name: &'static str,
    versions: Vec<(&'static str, String)>,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    unit: &'static str,
    ours: Samples,
    peer: Option<(&'static str, Samples)>,
    goal: Option<Goal>,
}

impl Row {
    /// Our median divided by the peer's.
    fn ratio(&self) -> Option<f64> {
        let (_, theirs) = self.peer.as_ref()?;
        Some(self.ours.median() / theirs.median())
    }

    /// `ok`, `MISSED`, or nothing where there is no goal.
    fn verdict(&self) -> &'static str {
        match self.goal.map(|goal| goal.is_held_by(self)) {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        }
    }
}

impl Table {
    /// An empty table of the measurement `name`, with the versions of the peers named.
    pub(crate) fn new(name: &'static str, peers: &[(&'static str, String)]) -> Self {
        let mut versions = vec![("openclaw (ours)", env!("CARGO_PKG_VERSION").to_owned())];
        versions.extend(peers.iter().cloned());
        versions.push(("kernel", first_line("uname", &["-sr"])));
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        versions.push(("cores", cores.to_string()));
        Self { name, versions, rows: Vec::new() }
    }

    /// Adds what both sides took.
    pub(crate) fn compare(
        &mut self,
        what: &str,
        unit: &'static str,
        ours: &Samples,
        (peer, theirs): (&'static str, &Samples),
    ) -> &mut Self {
        let peer = Some((peer, theirs.clone()));
        self.rows.push(Row { what: what.to_owned(), unit, ours: ours.clone(), peer, goal: None });
        self
    }

    /// Adds what has no other side.
    pub(crate) fn alone(&mut self, what: &str, unit: &'static str, ours: &Samples) -> &mut Self {
        let ours = ours.clone();
        self.rows.push(Row { what: what.to_owned(), unit, ours, peer: None, goal: None });
        self
    }

    /// Says what the last row has to keep.
    pub(crate) fn goal(&mut self, goal: Goal) -> &mut Self {
        if let Some(row) = self.rows.last_mut() {
            row.goal = Some(goal);
        }
        self
    }

    /// Prints the table, and then all of it as one line of JSON; fails if a goal was missed.
    pub(crate) fn print(&self) -> ExitCode {
        println!("\n{}: min / median / max", self.name);
        println!("{:<52} {:>24} {:>24} {:>8}", "", "ours", "peer", "ratio");
        for row in &self.rows {
            let what = format!("{} [{}]", row.what, row.unit);
            let (peer, theirs) = row
                .peer
                .as_ref()
                .map_or(("", String::new()), |(name, theirs)| (*name, spread(theirs)));
            let ratio = row.ratio().map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
            let goal = row.goal.map(|goal| format!("{goal}: ")).unwrap_or_default();
            let (ours, verdict) = (spread(&row.ours), row.verdict());
            println!("{what:<52} {ours:>24} {theirs:>24} {ratio:>8}  {goal}{verdict}  {peer}");
        }
        let versions: Vec<_> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        println!("{}", versions.join(", "));
        println!("{}", self.json());
        let missed = self.rows.iter().any(|row| row.verdict() == "MISSED");
        if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "what": row.what, "unit": row.unit, "ours": figures(&row.ours),
                "peer": row.peer.as_ref().map(|(name, theirs)| {
                    json!({ "name": name, "figures": figures(theirs), "ratio": row.ratio() })
                }),
                "goal": row.goal.map(|goal| goal.to_string()), "verdict": row.verdict(),
            })
        });
        let versions = self.versions.iter().map(|(name, version)| json!([name, version]));
        json!({ "bench": self.name, "rows": rows.collect::<Vec<_>>(),
                "versions": versions.collect::<Vec<_>>() })
    }
}

fn spread(samples: &Samples) -> String {
    if samples.count() == 1 {
        return figure(samples.median());
    }
    let [least, median, most] = [0.0, 0.5, 1.0].map(|share| figure(samples.at(share)));
    format!("{least} / {median} / {most}")
}

/// Three digits, more of a large number, none of what is whole.
fn figure(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn figures(samples: &Samples) -> Value {
    json!({ "min": samples.at(0.0), "median": samples.median(), "p99": samples.at(0.99),
            "max": samples.at(1.0), "count": samples.count() })
}

/// Prints a line before the table.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// How many rounds to measure: `OPENCLAW_BENCH_ROUNDS`, else `usual`.
pub(crate) fn rounds(usual: usize) -> usize {
    let asked = std::env::var("OPENCLAW_BENCH_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What a program calls its version.
pub(crate) fn first_line(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = run_to_end(command, Duration::from_secs(60));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
