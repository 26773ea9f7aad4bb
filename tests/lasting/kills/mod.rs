//! Kills at any moment, while clients change everything that a gateway confirms: each of them knows
//! what was confirmed and what was only asked, and looks at all of it after the next start.

mod approvals;
mod door;
mod kept;
mod news;
mod nodes;
mod pairings;
mod runs;
mod settings;
mod setup_codes;
mod tokens;
mod upgrades;

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::{
    dice::Dice,
    support::{Home, OurGateway, signal, wait_until},
    tier,
};
use approvals::Approvals;
use door::Door;
use kept::Kept;
use news::News;
use nodes::Node;
use pairings::Pairings;
use runs::Runs;
use settings::Settings;
use setup_codes::SetupCodes;
use tokens::Tokens;
use upgrades::Upgrade;

/// The longest that a gateway lives once everything was looked at, microseconds.
const LIFE: u64 = 250_000;
/// The most that it confirms where it dies by that.
const CONFIRMATIONS: u64 = 60;
/// How long a killed one may take to be gone.
const DYING: Duration = Duration::from_secs(10);
/// What a write-ahead log may grow to: SQLite takes it in every 1,000 pages, which it reuses.
const LONGEST_WAL: u64 = 8 * 1024 * 1024;

/// Everything that was confirmed, each part with the client who asks for it.
#[derive(Default)]
struct Everything {
    settings: Settings,
    pairings: Pairings,
    tokens: Tokens,
    upgrade: Upgrade,
    setup_codes: SetupCodes,
    node: Node,
    news: News,
    approvals: Approvals,
    runs: Runs,
}

impl Everything {
    /// Looks at everything through a gateway that has just started.
    async fn hold(&mut self, door: &Door) {
        self.settings.hold(door).await;
        self.pairings.hold(door).await;
        self.tokens.hold(door).await;
        self.upgrade.hold(door).await;
        self.setup_codes.hold(door).await;
        self.node.hold(door).await;
        self.news.hold(door).await;
        self.approvals.hold(door).await;
        self.runs.hold(door).await;
    }

    /// Changes everything at the same time until the gateway is gone; how much was confirmed.
    async fn live(&mut self, door: &Door, dice: &mut Dice) -> [u64; 9] {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h, mut i] =
            std::array::from_fn(|_| dice.another());
        let confirmed = tokio::join!(
            door.while_it_lives(async |count| self.settings.change(door, &mut a, count).await),
            door.while_it_lives(async |count| self.pairings.change(door, &mut b, count).await),
            door.while_it_lives(async |count| self.tokens.change(door, &mut c, count).await),
            door.while_it_lives(async |count| self.upgrade.change(door, &mut d, count).await),
            door.while_it_lives(async |count| self.setup_codes.change(door, &mut e, count).await),
            door.while_it_lives(async |count| self.node.change(door, &mut f, count).await),
            door.while_it_lives(async |count| self.news.change(door, &mut g, count).await),
            door.while_it_lives(async |count| self.approvals.change(door, &mut h, count).await),
            door.while_it_lives(async |count| self.runs.change(door, &mut i, count).await),
        );
        confirmed.into()
    }
}

/// Checks a copy of the database, as it lies there after a kill: whole, with every row that another
/// one names, in a log that does not grow for ever.
fn is_sound(folder: &Path) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["state.sqlite", "state.sqlite-wal"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    let wal = fs::metadata(copy.path().join("state.sqlite-wal")).map_or(0, |wal| wal.len());
    assert!(wal <= LONGEST_WAL, "a log of {wal} bytes");
    let database = rusqlite::Connection::open(copy.path().join("state.sqlite")).unwrap();
    let text = |pragma: &str| database.query_row(pragma, [], |row| row.get::<_, String>(0));
    assert_eq!(text("PRAGMA integrity_check").unwrap(), "ok");
    assert_eq!(text("PRAGMA journal_mode").unwrap(), "wal");
    let orphan = text("PRAGMA foreign_key_check");
    assert_eq!(orphan, Err(rusqlite::Error::QueryReturnedNoRows), "a row names none");
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let home = Home::new();
    let mut dice = Dice::cast("kills of a gateway");
    let mut everything = Everything::default();
    let mut confirmed = [0; 9];
    let mut burials = JoinSet::new();
    for _ in 0..tier::of(25, 500) {
        let mut gateway = OurGateway::start(&home);
        let door = Door::of(&gateway);
        everything.hold(&door).await;
        // The gateway dies while they ask, wherever it is by then, or as soon as it has confirmed something.
        let pid = gateway.program().pid();
        let moment = Duration::from_micros(dice.below(LIFE));
        let killer = (dice.below(2) == 0).then(|| {
            tokio::task::spawn_blocking(move || {
                std::thread::sleep(moment);
                signal(pid, Signal::SIGKILL);
            })
        });
        if killer.is_none() {
            door.dies_after(1 + dice.below(CONFIRMATIONS));
        }
        let more = Box::pin(everything.live(&door, &mut dice)).await;
        confirmed.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        if let Some(killer) = killer {
            killer.await.unwrap();
        }
        wait_until("it is dead", DYING, || gateway.program_mut().has_ended().then_some(()));
        is_sound(&home.state().join("rs"));
        // The system takes its time over what else ran with it.
        burials.spawn_blocking(move || drop(gateway));
    }
    let gateway = OurGateway::start(&home);
    let door = Door::of(&gateway);
    everything.hold(&door).await;
    everything.setup_codes.redeem_all(&door).await;
    burials.join_all().await;
    let [settings, pairings, tokens, upgrades, codes, node, news, approvals, runs] = confirmed;
    eprintln!(
        "confirmed: {settings} settings, {pairings} pairings, {tokens} of a token, {upgrades} of an \
         upgrade, {codes} of setup codes, {node} of a node, {news} news, {approvals} of approvals, \
         {runs} of runs"
    );
    assert!(confirmed.iter().all(|count| *count >= 2), "too little was confirmed: {dice}");
}
