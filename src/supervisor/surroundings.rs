//! What every remote hears of the machine around it, and what that means to it.
//!
//! The server says what it notices once, and each remote judges by itself, those on trial and those
//! that only drain as well: whether the machine slept, and whether the way to *its* server changed. On a
//! machine where containers come and go routes and addresses change all the time, and none of that is a
//! reason to doubt a session.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    course::{Course, courses},
    dialer::First,
    lane::{Command, State, serves},
    path::clock,
    wake::{Network, running_interfaces},
    watch::{Notice, Wake},
};

/// Changes elsewhere that may be a reason to dial at once or to ask a session: so many in a row,
const HINTS_AT_ONCE: u32 = 10;
/// and one in this time on average. It is the longest wait between two attempts, so what is not taken
/// as a hint costs no more than that.
const HINT_INTERVAL: Duration = Duration::from_secs(30);

/// The machine, as last noticed; counted, so that whoever was busy meanwhile misses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether anything but this machine can be reached.
    up: bool,
    /// How often its addresses or default routes changed.
    changes: u64,
    /// The interfaces that are on and have a carrier.
    running: Arc<BTreeSet<u32>>,
    /// How often it woke.
    wakes: u64,
    /// How long it slept, in all.
    slept: Duration,
}

impl Surroundings {
    /// They now, with nothing noticed yet.
    pub(super) fn read() -> Self {
        Self {
            up: Network::read().is_up(),
            changes: 0,
            running: Arc::new(running_interfaces().unwrap_or_default()),
            wakes: 0,
            slept: Duration::ZERO,
        }
    }

    /// Takes in what a look found. Whoever listens is to look as well, though nothing is counted: what
    /// it means to one remote, the others cannot tell.
    pub(super) fn note(&mut self, notice: &Notice) {
        self.look_at_interfaces();
        if let Some(wake) = notice.woke {
            self.wakes += 1;
            self.slept += match wake {
                Wake::Slept(time) => time,
                Wake::Continued | Wake::Told => Duration::ZERO,
            };
        }
        if let Some(up) = notice.network {
            self.note_network(up);
        }
    }

    /// Takes in what the watch saw when it began, after the first look.
    pub(super) fn begin(&mut self, up: bool) {
        self.look_at_interfaces();
        if self.up != up {
            self.note_network(up);
        }
    }

    /// What the system does not say just now is as it was.
    fn look_at_interfaces(&mut self) {
        if let Some(running) = running_interfaces() {
            self.running = Arc::new(running);
        }
    }

    /// The addresses or default routes changed.
    pub(super) fn note_network(&mut self, up: bool) {
        self.up = up;
        self.changes += 1;
    }
}

/// What a remote's lanes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Woke { slept: Duration },
    Network { up: bool },
    Addresses,
}

impl From<News> for Command {
    fn from(news: News) -> Self {
        match news {
            News::Woke { slept } => Self::Woke { slept },
            News::Network { up } => Self::Network { up },
            News::Addresses => Self::Addresses,
        }
    }
}

/// The ways to the addresses of a remote's server, where they can be known.
type Courses = BTreeMap<IpAddr, Option<Course>>;

/// What one remote has made of its surroundings so far.
struct Outlook {
    /// Whether its first dial may need no network.
    is_near: bool,
    /// Whether its server's addresses are looked up for each dial, and may be others by then.
    is_name: bool,
    heard: Surroundings,
    courses: Courses,
    /// What its lanes believe.
    up: bool,
    /// When all hints that were taken are paid for, at one in [`HINT_INTERVAL`].
    paid: Option<Instant>,
}

impl Outlook {
    /// Judges what is to be seen `now`; `serves` tells whether its path is live.
    fn look(
        &mut self,
        heard: &Surroundings,
        courses: Courses,
        serves: bool,
        now: Instant,
    ) -> Vec<News> {
        let before = std::mem::replace(&mut self.heard, heard.clone());
        let mut news = Vec::new();
        if heard.wakes != before.wakes {
            news.push(News::Woke { slept: heard.slept.saturating_sub(before.slept) });
        }
        let is_known = !courses.is_empty();
        let leads = courses.values().flatten().any(|course| course.runs);
        // An address that was found just now has no past.
        let old = |address| self.courses.get(address);
        let differs = courses.iter().any(|(to, new)| old(to).is_some_and(|old| old != new));
        self.courses = courses;
        let up = self.is_near || leads || (heard.up && (self.is_name || !is_known));
        let turns = std::mem::replace(&mut self.up, up) != up;
        let is_changed = heard.changes != before.changes;
        // What changed elsewhere may have brought a name server, or whatever the server lacked.
        let may_matter = is_changed && !(is_known && serves);
        if turns || ((differs || may_matter) && self.takes_hint(now)) {
            news.push(News::Network { up });
        } else if is_changed {
            news.push(News::Addresses);
        }
        news
    }

    fn takes_hint(&mut self, now: Instant) -> bool {
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + HINT_INTERVAL;
        let is_affordable = paid <= now + HINT_INTERVAL * HINTS_AT_ONCE;
        if is_affordable {
            self.paid = Some(paid);
        }
        is_affordable
    }
}

/// One remote's ear.
pub(super) struct Listener {
    outlook: Outlook,
    heard: watch::Receiver<Surroundings>,
    addresses: watch::Receiver<Vec<IpAddr>>,
    port: u16,
    state: watch::Receiver<State>,
    lanes: Vec<mpsc::Sender<Command>>,
}

impl Listener {
    /// One for `lanes` that have been told nothing yet, the first of them with this `state`; tells them
    /// at once if there is no network.
    pub(super) fn new(
        first: First,
        heard: watch::Receiver<Surroundings>,
        state: watch::Receiver<State>,
        lanes: Vec<mpsc::Sender<Command>>,
    ) -> Self {
        let First { is_near, is_name, addresses, port } = first;
        let outlook = Outlook {
            is_near,
            is_name,
            heard: heard.borrow().clone(),
            courses: Courses::new(),
            // As a lane begins.
            up: true,
            paid: None,
        };
        let mut listener = Self { outlook, heard, addresses, port, state, lanes };
        for news in listener.look() {
            for lane in &listener.lanes {
                // There is room: nobody else knows them yet.
                let _told = lane.try_send(news.into());
            }
        }
        listener
    }

    /// Tells the lanes what concerns them, for as long as somebody says something.
    pub(super) async fn listen(mut self) {
        loop {
            tokio::select! {
                changed = self.heard.changed() => if changed.is_err() { return },
                // The way to new addresses is looked at now, so that a change of it is noticed.
                Ok(()) = self.addresses.changed() => {}
            }
            for news in self.look() {
                tracing::debug!(?news, "the machine around it");
                for lane in &self.lanes {
                    // One that has ended hears nothing.
                    let _ended = lane.send(news.into()).await;
                }
            }
        }
    }

    fn look(&mut self) -> Vec<News> {
        let heard = self.heard.borrow_and_update().clone();
        let addresses = self.addresses.borrow_and_update();
        let courses = courses(&addresses, self.port, &heard.running);
        drop(addresses);
        let serves = serves(self.state.borrow().phase);
        self.outlook.look(&heard, courses, serves, clock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(up: bool) -> Surroundings {
        let running = Arc::default();
        Surroundings { up, changes: 0, running, wakes: 0, slept: Duration::ZERO }
    }

    /// One remote with what it sees.
    struct Scene {
        outlook: Outlook,
        heard: Surroundings,
        courses: Courses,
        serves: bool,
        now: Instant,
    }

    impl Scene {
        fn new(is_name: bool) -> Self {
            let heard = surroundings(true);
            let outlook = Outlook {
                is_near: false,
                is_name,
                heard: heard.clone(),
                courses: Courses::new(),
                up: true,
                paid: None,
            };
            let mut scene = Self { outlook, heard, courses: course(1), serves: true, now: clock() };
            assert_eq!(scene.look(), []);
            scene
        }

        fn look(&mut self) -> Vec<News> {
            self.outlook.look(&self.heard, self.courses.clone(), self.serves, self.now)
        }

        /// The same after a change of some address of the machine's.
        fn change(&mut self, up: bool) -> Vec<News> {
            self.heard.note_network(up);
            self.look()
        }
    }

    fn server() -> IpAddr {
        IpAddr::from([10, 2, 0, 2])
    }

    /// The way there by a gateway with this number.
    fn course(gateway: u8) -> Courses {
        let gateway = Some(IpAddr::from([10, 1, 0, gateway]));
        let course = Course { interface: Some(2), gateway, source: None, runs: true };
        Courses::from([(server(), Some(course))])
    }

    const UP: News = News::Network { up: true };
    const DOWN: News = News::Network { up: false };

    #[test]
    fn another_way_to_its_server_is_news_whether_anything_else_changed_or_not() {
        for is_name in [false, true] {
            let mut scene = Scene::new(is_name);
            scene.courses = course(7);
            assert_eq!(scene.look(), [UP]);
            assert_eq!(scene.look(), [], "once");
        }
    }

    #[test]
    fn a_server_that_no_route_leads_to_is_not_dialled_by_its_address() {
        let mut scene = Scene::new(false);
        scene.courses = Courses::from([(server(), None)]);
        assert_eq!(scene.look(), [DOWN]);
        scene.serves = false;
        assert_eq!(scene.change(true), [DOWN], "an address is no route");
        scene.courses = course(1);
        assert_eq!(scene.look(), [UP]);
        let Some(Some(course)) = scene.courses.get_mut(&server()) else { panic!("a course") };
        course.runs = false;
        assert_eq!(scene.look(), [DOWN], "no carrier");
    }

    #[test]
    fn a_name_may_have_other_addresses_by_now_and_is_dialled_while_there_is_any_network() {
        let mut scene = Scene::new(true);
        scene.courses = Courses::from([(server(), None)]);
        assert_eq!(scene.look(), [UP], "doubted");
        assert_eq!(scene.change(false), [DOWN]);
        assert_eq!(scene.change(true), [UP]);
        // It was found at another address, whose way has no past.
        scene.courses = Courses::from([(IpAddr::from([10, 3, 0, 3]), None)]);
        assert_eq!(scene.look(), []);
    }

    #[test]
    fn containers_that_come_and_go_disturb_no_path_that_works() {
        let mut scene = Scene::new(true);
        for _ in 0..600 {
            assert_eq!(scene.change(true), [News::Addresses]);
            assert_eq!(scene.look(), []);
            scene.now += Duration::from_secs(1);
        }
    }

    #[test]
    fn and_make_nobody_dial_every_second() {
        for courses in [course(1), Courses::new()] {
            let mut scene = Scene::new(true);
            (scene.serves, scene.courses) = (false, courses);
            let mut hints = 0;
            for second in 0..600 {
                let is_hint = scene.change(true) == [UP];
                hints += u32::from(is_hint);
                assert!(is_hint || second > 5, "the first ones are taken");
                scene.now += Duration::from_secs(1);
            }
            assert!((20..=30).contains(&hints), "{hints}");
        }
    }

    #[test]
    fn what_leads_over_this_machine_needs_no_network() {
        let mut scene = Scene::new(false);
        (scene.outlook.is_near, scene.courses) = (true, Courses::new());
        assert_eq!(scene.change(false), [UP], "asked whether it lives, and dialled all the same");
    }

    #[test]
    fn whoever_was_busy_hears_how_long_was_slept_in_all() {
        let mut scene = Scene::new(false);
        for seconds in [5, 7] {
            let slept = Some(Wake::Slept(Duration::from_secs(seconds)));
            scene.heard.note(&Notice { sleeps: false, woke: slept, network: None });
        }
        assert_eq!(scene.look(), [News::Woke { slept: Duration::from_secs(12) }]);
        scene.heard.note(&Notice { sleeps: false, woke: Some(Wake::Told), network: None });
        assert_eq!(scene.look(), [News::Woke { slept: Duration::ZERO }]);
    }
}
