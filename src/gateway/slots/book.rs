//! Who waits at the door, who has a place there and who is in: the decisions, without sockets or a
//! clock. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::{GRACE, IN_ALL, LOBBY, LOBBY_BEHIND, PER_SOURCE, SOCKETS, Source};
use crate::gateway::ingress::Door;

/// Everybody who came and has not left, by a number that grows.
#[derive(Debug, Default)]
pub(super) struct Book {
    latest: u64,
    /// Connected, and not a byte came yet.
    silent: BTreeMap<u64, Source>,
    /// Spoke, and wait for a place.
    waiting: BTreeMap<u64, Source>,
    /// Have a place, and are not authenticated yet.
    seated: BTreeMap<u64, (Source, Instant)>,
    seated_here: HashMap<Source, usize>,
    /// Authenticated.
    inside: BTreeSet<u64>,
}

/// What came of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// He is in the lobby with this number; the one who was silent for longest has to go for him.
    Lobby(u64, Option<u64>),
    /// Everybody in the lobby has spoken, and it is full.
    Full,
}

/// What came of the wish of one who waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// This one gave his place up and has to go.
    Freed(u64),
    /// Nobody has to before then.
    NotBefore(Instant),
}

impl Book {
    /// Takes a socket from `source` into the lobby.
    pub(super) fn enter(&mut self, source: Source) -> Entered {
        let mut gone = None;
        let is_behind = source.door != Door::Ordinary;
        let is_full = self.silent.len() + self.waiting.len() >= LOBBY;
        let has_share = is_behind && self.in_lobby(source.door) >= LOBBY_BEHIND;
        if is_full || has_share {
            // Who comes by a door that has had its share takes the place of one who did as well.
            let mut silent = self.silent.iter();
            let oldest = silent.find(|(_, other)| !has_share || other.door == source.door);
            let Some(oldest) = oldest.map(|(number, _)| *number) else { return Entered::Full };
            self.silent.remove(&oldest);
            gone = Some(oldest);
        }
        self.latest += 1;
        self.silent.insert(self.latest, source);
        Entered::Lobby(self.latest, gone)
    }

    /// The first byte of a visitor came: from now on he waits for a place.
    pub(super) fn spoke(&mut self, number: u64) {
        if let Some(source) = self.silent.remove(&number) {
            self.waiting.insert(number, source);
        }
    }

    /// Gives free places to those who wait, first come first served, and says who they are.
    pub(super) fn seat(&mut self, now: Instant) -> Vec<u64> {
        let mut seated = Vec::new();
        while let Some((number, source)) = self.next() {
            self.waiting.remove(&number);
            *self.seated_here.entry(source).or_default() += 1;
            self.seated.insert(number, (source, now));
            seated.push(number);
        }
        seated
    }

    /// A visitor who waits asks for the place of one who has had his for [`GRACE`].
    pub(super) fn press(&mut self, number: u64, now: Instant) -> Pressed {
        let Some(source) = self.waiting.get(&number).copied() else {
            return Pressed::NotBefore(now + GRACE);
        };
        let is_source_full = self.is_full(source);
        let rivals = self.seated.iter().map(|(number, (source, since))| (*number, *source, *since));
        let rivals = rivals.filter(|(_, other, _)| !is_source_full || *other == source);
        match rivals.min_by_key(|(_, _, since)| *since) {
            Some((oldest, _, since)) if since + GRACE <= now => {
                self.leave(oldest);
                Pressed::Freed(oldest)
            }
            Some((_, _, since)) => Pressed::NotBefore(since + GRACE),
            None => Pressed::NotBefore(now + GRACE),
        }
    }

    /// A client with a place is authenticated, and needs it no longer.
    pub(super) fn admitted(&mut self, number: u64) {
        if self.rise(number) {
            self.inside.insert(number);
        }
    }

    /// A visitor is gone, wherever he stood.
    pub(super) fn leave(&mut self, number: u64) {
        self.silent.remove(&number);
        self.waiting.remove(&number);
        self.inside.remove(&number);
        self.rise(number);
    }

    /// Whether a visitor has a place.
    pub(super) fn is_seated(&self, number: u64) -> bool {
        self.seated.contains_key(&number)
    }

    /// Whether a visitor is at the door or inside.
    pub(super) fn is_here(&self, number: u64) -> bool {
        self.is_seated(number)
            || self.inside.contains(&number)
            || self.silent.contains_key(&number)
            || self.waiting.contains_key(&number)
    }

    /// How many sockets there are, and how many of them are not authenticated.
    pub(super) fn counts(&self) -> (usize, usize) {
        let outside = self.silent.len() + self.waiting.len() + self.seated.len();
        (self.inside.len() + outside, outside)
    }

    /// The first of those who wait for whom there is a place.
    fn next(&self) -> Option<(u64, Source)> {
        if self.seated.len() >= IN_ALL || self.seated.len() + self.inside.len() >= SOCKETS {
            return None;
        }
        let mut waiting = self.waiting.iter();
        let next = waiting.find(|(_, source)| !self.is_full(**source));
        next.map(|(number, source)| (*number, *source))
    }

    /// How many came in by this door and have no place yet.
    fn in_lobby(&self, door: Door) -> usize {
        let lobby = self.silent.values().chain(self.waiting.values());
        lobby.filter(|source| source.door == door).count()
    }

    fn is_full(&self, source: Source) -> bool {
        self.seated_here.get(&source).is_some_and(|here| *here >= PER_SOURCE)
    }

    /// Takes a place back; says whether there was one.
    fn rise(&mut self, number: u64) -> bool {
        let Some((source, _)) = self.seated.remove(&number) else { return false };
        if let Some(here) = self.seated_here.get_mut(&source) {
            *here -= 1;
            if *here == 0 {
                self.seated_here.remove(&source);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> Source {
        at(Door::Ordinary, last)
    }

    fn at(door: Door, last: u8) -> Source {
        Source { door, address: [192, 0, 2, last].into() }
    }

    /// Somebody who came from `address` and said something.
    fn spoken(book: &mut Book, address: Source) -> u64 {
        let Entered::Lobby(number, None) = book.enter(address) else { panic!("no room") };
        book.spoke(number);
        number
    }

    #[test]
    fn who_says_nothing_takes_no_place_and_goes_first() {
        let (mut book, now) = (Book::default(), Instant::now());
        let silent: Vec<_> = (0..LOBBY).map(|_| book.enter(address(1))).collect();
        assert_eq!(silent[1], Entered::Lobby(2, None));
        assert!(book.seat(now).is_empty());
        let newcomer = LOBBY as u64 + 1;
        assert_eq!(book.enter(address(1)), Entered::Lobby(newcomer, Some(1)));
        book.spoke(newcomer);
        assert_eq!(book.seat(now), [newcomer]);
        assert!(!book.is_here(1));
    }

    #[test]
    fn an_address_runs_out_before_its_neighbours_do_and_its_next_ones_wait_in_order() {
        let (mut book, now) = (Book::default(), Instant::now());
        let here: Vec<_> = (0..PER_SOURCE + 2).map(|_| spoken(&mut book, address(1))).collect();
        let there = spoken(&mut book, address(2));
        let (first, rest) = here.split_at(PER_SOURCE);
        assert_eq!(book.seat(now), [first, &[there]].concat());
        book.admitted(first[3]);
        assert_eq!(book.seat(now), [rest[0]]);
        book.leave(first[0]);
        assert_eq!(book.seat(now), [rest[1]]);
        assert_eq!(book.counts(), (PER_SOURCE + 2, PER_SOURCE + 1));
    }

    #[test]
    fn a_flood_by_tailscales_door_keeps_nobody_from_the_ordinary_one() {
        let (mut book, now) = (Book::default(), Instant::now());
        let (served, here) = (at(Door::Serve, 1), at(Door::Ordinary, 1));
        let silent = book.enter(here);
        // All of them have the one address that a program of this machine has.
        for _ in 0..PER_SOURCE + LOBBY_BEHIND {
            spoken(&mut book, served);
            book.seat(now);
        }
        assert_eq!(book.enter(served), Entered::Full, "its share of the lobby is taken");
        let program = spoken(&mut book, here);
        assert_eq!(book.seat(now), [program]);
        let Entered::Lobby(silent, None) = silent else { panic!("{silent:?}") };
        assert!(book.is_here(silent));
        let mut book = Book::default();
        let first = book.enter(served);
        book.enter(here);
        for _ in 1..LOBBY_BEHIND {
            book.enter(served);
        }
        assert_eq!(first, Entered::Lobby(1, None));
        let newcomer = LOBBY_BEHIND as u64 + 2;
        assert_eq!(book.enter(served), Entered::Lobby(newcomer, Some(1)), "its own one goes");
        // In a full lobby as well, where the one who was silent for longest is somebody else.
        let mut book = Book::default();
        book.enter(here);
        let first = book.enter(served);
        assert_eq!(first, Entered::Lobby(2, None));
        for _ in 1..LOBBY_BEHIND {
            book.enter(served);
        }
        for _ in LOBBY_BEHIND + 1..LOBBY {
            book.enter(here);
        }
        let newcomer = LOBBY as u64 + 1;
        assert_eq!(book.enter(served), Entered::Lobby(newcomer, Some(2)), "its own one goes");
        assert_eq!(book.enter(here), Entered::Lobby(newcomer + 1, Some(1)), "anybody goes for him");
    }

    #[test]
    fn a_lobby_of_people_who_have_spoken_takes_nobody_else() {
        let (mut book, now) = (Book::default(), Instant::now());
        for _ in 0..PER_SOURCE + LOBBY {
            spoken(&mut book, address(1));
            book.seat(now);
        }
        assert_eq!(book.enter(address(2)), Entered::Full);
    }

    #[test]
    fn a_place_is_given_up_once_its_time_is_over_and_somebody_waits_for_it() {
        let (mut book, start) = (Book::default(), Instant::now());
        let other = spoken(&mut book, address(2));
        book.seat(start);
        let slow: Vec<_> = (0..PER_SOURCE).map(|_| spoken(&mut book, address(1))).collect();
        let honest = spoken(&mut book, address(1));
        book.seat(start + GRACE / 2);
        let due = start + GRACE / 2 + GRACE;
        assert_eq!(book.press(honest, start + GRACE), Pressed::NotBefore(due));
        assert_eq!(book.press(honest, due), Pressed::Freed(slow[0]));
        assert_eq!(book.seat(due), [honest]);
        assert!(book.is_seated(other) && !book.is_here(slow[0]));
    }

    /// What happens, to the how manieth latest, and from where.
    type Step = (u8, u64, u8);

    fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0..6_u8, 0..400_u64, 0..8_u8), 0..most)
    }

    /// Runs a script on `book`, which keeps every limit at every step.
    fn holds(mut book: Book, script: Vec<Step>) -> Result<(), TestCaseError> {
        let mut now = Instant::now();
        for (what, whom, from) in script {
            let whom = book.latest.saturating_sub(whom);
            match what {
                0 => drop(book.enter(address(from))),
                1 => drop(book.enter(at(Door::Serve, from))),
                2 | 3 => book.spoke(whom),
                4 => drop(book.press(whom, now)),
                _ if from < 2 => book.admitted(whom),
                _ => book.leave(whom),
            }
            book.seat(now);
            now += Duration::from_millis(u64::from(from));
            let sum: usize = book.seated_here.values().sum();
            prop_assert_eq!(sum, book.seated.len());
            prop_assert!(book.seated.len() <= IN_ALL);
            prop_assert!(book.seated_here.values().all(|here| (1..=PER_SOURCE).contains(here)));
            prop_assert!(book.silent.len() + book.waiting.len() <= LOBBY);
            prop_assert!(book.in_lobby(Door::Serve) <= LOBBY_BEHIND);
            prop_assert!(book.next().is_none());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn places_never_exceed_their_limits_and_nobody_waits_beside_a_free_one(
            script in steps(3_000),
        ) {
            holds(Book::default(), script)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_full_lobby_keeps_its_limits_as_well(
            before in 0..4_usize, served in LOBBY_BEHIND - 4..=LOBBY_BEHIND, script in steps(200),
        ) {
            let mut book = Book::default();
            for number in 0..LOBBY {
                let is_served = (before..before + served).contains(&number);
                book.enter(at(if is_served { Door::Serve } else { Door::Ordinary }, 1));
            }
            holds(book, script)?;
        }
    }
}
