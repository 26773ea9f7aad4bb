//! The stages of an SSH connection, told from the bytes that pass.

/// Where in a connection something is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In the middle of the server's banner.
    InBanner,
    /// When the server's banner has passed, and nothing after it.
    AfterBanner,
    /// In the middle of the server's first packet.
    KeyExchange,
    /// In the client's request to be let in.
    Authentication,
}

/// The client's first encrypted packet asks for the service that lets in; so many bytes end after
/// it, in the second.
const INTO_SECOND: usize = 100;
/// A byte in the middle of a banner, and of a first packet.
const MIDDLE: usize = 4;
/// `SSH_MSG_NEWKEYS` (RFC 4253, section 7.3); what follows is encrypted.
const NEWKEYS: u8 = 21;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    FromClient,
    FromServer,
}

/// Looks for a moment in the bytes of one direction.
pub(super) struct Lookout {
    moment: Moment,
    direction: Direction,
    /// Everything up to the end of the clear text.
    seen: Vec<u8>,
}

impl Lookout {
    pub(super) fn new(moment: Moment, direction: Direction) -> Self {
        Self { moment, direction, seen: Vec::new() }
    }

    /// How many bytes of `part` pass before the moment, if it comes in this part.
    pub(super) fn find(&mut self, part: &[u8]) -> Option<usize> {
        let before = self.seen.len();
        self.seen.extend(part);
        let at = match (self.moment, self.direction) {
            (Moment::InBanner, Direction::FromServer) => Some(MIDDLE),
            (Moment::AfterBanner, Direction::FromServer) => self.banner(),
            (Moment::KeyExchange, Direction::FromServer) => Some(self.banner()? + MIDDLE),
            (Moment::Authentication, Direction::FromClient) => {
                Some(self.clear_text()? + INTO_SECOND)
            }
            _ => None,
        }?;
        (self.seen.len() > at).then(|| at.saturating_sub(before))
    }

    /// Where the banner ends.
    fn banner(&self) -> Option<usize> {
        Some(self.seen.iter().position(|byte| *byte == b'\n')? + 1)
    }

    /// Where the last packet ends that is not encrypted.
    fn clear_text(&self) -> Option<usize> {
        let mut at = self.banner()?;
        loop {
            let packet = self.seen.get(at..)?;
            let length = u32::from_be_bytes(packet.get(..4)?.try_into().ok()?);
            let kind = *packet.get(5)?;
            at += 4 + usize::try_from(length).ok()?;
            if kind == NEWKEYS {
                return Some(at);
            }
        }
    }
}
