//! The door: how many sockets may stand there unauthenticated, and how the others wait.
//!
//! A socket comes into the lobby and needs a place once its first byte is there. The places are
//! few (64 an address, 256 in all), because only who has one costs memory; behind a tunnel all
//! clients share an address, so the next ones wait for a place. Nobody who is silent has one, and
//! who makes a long business of his handshake gives his up to those who wait. Everybody whom
//! Tailscale brings has the address of this machine, so each door is counted by itself.

mod book;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout_at},
};

use book::{Book, Entered, Pressed};

use super::{ingress, tally::TurnedAway};

/// Places of one source.
const PER_SOURCE: usize = 64;
/// Places in all.
const IN_ALL: usize = 256;
/// Sockets with a place and clients together.
const SOCKETS: usize = 4_096;
/// Sockets without a place; who was silent for longest goes when another one comes.
const LOBBY: usize = 2_048;
/// How many of those may have come in by a door of Tailscale's: who floods that one leaves the
/// lobby to others.
const LOBBY_BEHIND: usize = LOBBY / 4;
/// From the accept on, how long a socket may say nothing, or take until it is authenticated.
pub(super) const WINDOW: Duration = Duration::from_secs(15);
/// From the accept on, how long a socket may wait for a place; what is left of [`WINDOW`] is for
/// its handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a place is safe while others wait for one.
const GRACE: Duration = Duration::from_secs(3);

/// Where a socket comes from, as far as places are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    door: ingress::Door,
    address: IpAddr,
}

/// Who is at the door.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Door>);

#[derive(Debug, Default)]
struct Door {
    book: Book,
    /// How each of those at the door is told that its standing changed.
    bells: HashMap<u64, Arc<Notify>>,
}

/// One socket's standing; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    bell: Arc<Notify>,
    since: Instant,
}

/// Tells that a place was taken away.
#[derive(Debug)]
pub(super) struct Loss {
    slots: Arc<Slots>,
    number: u64,
    bell: Arc<Notify>,
}

impl Slots {
    /// Takes a socket from `address` that came in by a listener into the lobby; `None` when there is
    /// no room.
    pub(super) fn enter(self: &Arc<Self>, by: ingress::Door, address: IpAddr) -> Option<Slot> {
        let source = Source { door: by, address: address.to_canonical() };
        let mut door = self.lock();
        let Entered::Lobby(number, gone) = door.book.enter(source) else {
            return None;
        };
        if let Some(gone) = gone {
            door.ring(gone);
        }
        let bell = Arc::new(Notify::new());
        door.bells.insert(number, Arc::clone(&bell));
        drop(door);
        let slots = Arc::clone(self);
        Some(Slot { slots, number, bell, since: Instant::now() })
    }

    /// How many sockets there are, and how many of them are not authenticated.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.lock().book.counts()
    }

    fn lock(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    fn ring(&self, number: u64) {
        if let Some(bell) = self.bells.get(&number) {
            bell.notify_one();
        }
    }

    /// Tells those who have a place now.
    fn seat(&mut self) {
        for number in self.book.seat(Instant::now()) {
            self.ring(number);
        }
    }
}

impl Slot {
    /// When the socket came.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Waits until the first byte is there (`spoken`) and then for a place; an error says why the
    /// socket gets none, if anybody has to be told.
    pub(super) async fn placed(
        &self,
        spoken: impl Future<Output = io::Result<()>>,
    ) -> Result<(), Option<TurnedAway>> {
        let spoken = async {
            tokio::select! {
                spoken = spoken => spoken.map_err(|_| None),
                () = self.dismissed() => Err(Some(TurnedAway::NoPlace)),
            }
        };
        let limit = self.since + WINDOW;
        timeout_at(limit, spoken).await.unwrap_or(Err(Some(TurnedAway::TooLate)))?;
        {
            let mut door = self.slots.lock();
            door.book.spoke(self.number);
            door.seat();
        }
        let limit = self.since + PATIENCE;
        timeout_at(limit, self.seated()).await.map_err(|_| Some(TurnedAway::NoPlace))
    }

    /// Tells of the loss of the place.
    pub(super) fn loss(&self) -> Loss {
        let (slots, bell) = (Arc::clone(&self.slots), Arc::clone(&self.bell));
        Loss { slots, number: self.number, bell }
    }

    /// Frees the place: the client is authenticated. What is in never loses its standing.
    pub(super) fn admitted(&self) {
        let mut door = self.slots.lock();
        door.book.admitted(self.number);
        door.bells.remove(&self.number);
        door.seat();
    }

    async fn seated(&self) {
        let mut press = Instant::now() + GRACE;
        while !self.slots.lock().book.is_seated(self.number) {
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep_until(press) => press = self.press(),
            }
        }
    }

    /// Asks for the place of somebody who has had his for long; says when to ask again.
    fn press(&self) -> Instant {
        let mut door = self.slots.lock();
        match door.book.press(self.number, Instant::now()) {
            Pressed::Freed(gone) => {
                door.ring(gone);
                door.seat();
                Instant::now() + GRACE
            }
            Pressed::NotBefore(time) => time,
        }
    }

    async fn dismissed(&self) {
        while self.slots.lock().book.is_here(self.number) {
            self.bell.notified().await;
        }
    }
}

impl Loss {
    /// Waits until the place is taken away; for ever, once the client is authenticated.
    pub(super) async fn happens(self) {
        loop {
            self.bell.notified().await;
            if !self.slots.lock().book.is_here(self.number) {
                return;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut door = self.slots.lock();
        door.book.leave(self.number);
        door.bells.remove(&self.number);
        door.seat();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn placed(slots: &Arc<Slots>) -> Result<Slot, Option<TurnedAway>> {
        let slot = slots.enter(ingress::Door::Ordinary, HERE).unwrap();
        slot.placed(ready(Ok(()))).await?;
        Ok(slot)
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_behind_one_address_is_seated_one_after_another() {
        let slots = Arc::new(Slots::default());
        let crowd: Vec<_> = (0..1_000)
            .map(|_| {
                let slots = Arc::clone(&slots);
                tokio::spawn(async move {
                    let slot = placed(&slots).await?;
                    tokio::task::yield_now().await;
                    slot.admitted();
                    Ok::<_, Option<TurnedAway>>(slot)
                })
            })
            .collect();
        let mut inside = Vec::new();
        for visitor in crowd {
            inside.push(visitor.await.unwrap().unwrap());
        }
        assert_eq!(slots.counts(), (1_000, 0));
        drop(inside);
        assert_eq!(slots.counts(), (0, 0));
        assert!(slots.lock().bells.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_hung_up_on_after_the_window_or_when_the_lobby_is_full() {
        let slots = Arc::new(Slots::default());
        let (start, silent) = (Instant::now(), slots.enter(ingress::Door::Ordinary, HERE).unwrap());
        assert_eq!(silent.placed(pending()).await, Err(Some(TurnedAway::TooLate)));
        assert_eq!(start.elapsed(), WINDOW);
        drop(silent);
        let oldest = slots.enter(ingress::Door::Ordinary, HERE).unwrap();
        let lobby: Vec<_> =
            (0..LOBBY).map(|_| slots.enter(ingress::Door::Ordinary, HERE).unwrap()).collect();
        assert_eq!(oldest.placed(pending()).await, Err(Some(TurnedAway::NoPlace)));
        assert!(placed(&slots).await.is_ok());
        drop(lobby);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_handshakes_hold_a_newcomer_up_for_three_seconds_and_lose_their_place() {
        let slots = Arc::new(Slots::default());
        let mut slow = Vec::new();
        for _ in 0..PER_SOURCE {
            slow.push(placed(&slots).await.unwrap());
        }
        let start = Instant::now();
        let honest = placed(&slots).await.unwrap();
        assert_eq!(start.elapsed(), GRACE);
        slow[0].loss().happens().await;
        assert!(slots.lock().book.is_seated(honest.number));
        assert!(slots.lock().book.is_seated(slow[1].number));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_in_loses_nothing() {
        let slots = Arc::new(Slots::default());
        let inside = placed(&slots).await.unwrap();
        let loss = inside.loss();
        inside.admitted();
        for _ in 0..PER_SOURCE {
            placed(&slots).await.unwrap();
        }
        let lost = tokio::time::timeout(Duration::from_secs(3_600), loss.happens());
        assert!(lost.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_place_in_time_is_turned_away() {
        let slots = Arc::new(Slots::default());
        // More than can be seated in the time, each of whom keeps his place as long as he can.
        let crowd: Vec<_> = (0..PER_SOURCE * 5)
            .map(|_| {
                let slot = slots.enter(ingress::Door::Ordinary, HERE).unwrap();
                tokio::spawn(async move {
                    if slot.placed(ready(Ok(()))).await.is_ok() {
                        slot.loss().happens().await;
                    }
                })
            })
            .collect();
        for _ in &crowd {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        let last = placed(&slots).await;
        assert_eq!(last.err(), Some(Some(TurnedAway::NoPlace)));
        assert_eq!(start.elapsed(), PATIENCE);
        drop(crowd);
    }
}
