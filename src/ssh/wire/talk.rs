//! When a read needs no acknowledgement of its own: in a conversation the next request is one.

use std::mem;

/// So many reads in a row that were each answered before the next one make a conversation.
const TURNS: u8 = 8;
/// What a server says on its own account, such as that there is more window, is not longer; what it
/// has to say for a stream may wait behind that.
const CONTROL_MOST: usize = 48;

/// Whether reads are acknowledged by what is written next.
#[derive(Debug)]
pub(super) struct Talk {
    /// Whether the kernel acknowledges what is not answered soon enough.
    is_safe: bool,
    /// Whether nothing has been written since the last read.
    is_owed: bool,
    /// Reads in a row that were answered before the next one.
    turns: u8,
}

impl Talk {
    /// Of a connection of which nothing was read yet.
    pub(super) fn new(is_safe: bool) -> Self {
        Self { is_safe, is_owed: false, turns: 0 }
    }

    /// Notes that so many bytes were read; `true` if they must be acknowledged now.
    pub(super) fn read(&mut self, count: usize) -> bool {
        if mem::replace(&mut self.is_owed, true) {
            self.turns = 0;
        }
        !self.is_safe || self.turns < TURNS || count <= CONTROL_MOST
    }

    /// Notes that something was written.
    pub(super) fn wrote(&mut self) {
        if mem::take(&mut self.is_owed) {
            self.turns = self.turns.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads and writes in turn until reads are no longer acknowledged; how many those were.
    fn turns_until_trusted(talk: &mut Talk) -> u8 {
        (0..=TURNS)
            .take_while(|_| {
                talk.read(100) && {
                    talk.wrote();
                    true
                }
            })
            .count() as u8
    }

    #[test]
    fn only_in_a_conversation_the_next_request_is_the_acknowledgement() {
        let mut talk = Talk::new(true);
        assert_eq!(turns_until_trusted(&mut talk), TURNS);
        talk.wrote();
        assert!(!talk.read(100) && talk.read(100), "two in a row are no conversation");
        assert_eq!(turns_until_trusted(&mut talk), TURNS, "and it begins anew");
    }

    #[test]
    fn what_bytes_of_a_stream_may_wait_behind_is_acknowledged_in_a_conversation_too() {
        let mut talk = Talk::new(true);
        turns_until_trusted(&mut talk);
        talk.wrote();
        assert!(talk.read(CONTROL_MOST));
    }

    #[test]
    fn a_kernel_that_may_wait_long_is_never_trusted() {
        let mut talk = Talk::new(false);
        assert_eq!(turns_until_trusted(&mut talk), TURNS + 1);
    }
}
