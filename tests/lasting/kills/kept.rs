//! What has to be there after a kill: what was confirmed, or what was asked and never answered.

use std::fmt::Debug;

/// One thing: as it was last confirmed, and as it may be if a request was taken up whose answer
/// never came.
#[derive(Debug, Default)]
pub(super) struct Kept<T> {
    pub(super) known: T,
    perhaps: Option<T>,
}

impl<T: PartialEq + Debug> Kept<T> {
    /// Something is about to be asked for that makes it so.
    pub(super) fn asked(&mut self, next: T) {
        self.perhaps = Some(next);
    }

    /// That was confirmed.
    pub(super) fn confirmed(&mut self) {
        self.known = self.perhaps.take().expect("something was asked");
    }

    /// It was confirmed to be so, in as many words.
    pub(super) fn is(&mut self, known: T) {
        (self.known, self.perhaps) = (known, None);
    }

    /// Whether a request for this was never answered.
    pub(super) fn may_be(&self, it: &T) -> bool {
        self.perhaps.as_ref() == Some(it)
    }

    /// Lets what was asked for be completed by what nobody was told.
    pub(super) fn guess(&mut self, complete: impl FnOnce(&mut T)) {
        if let Some(perhaps) = &mut self.perhaps {
            complete(perhaps);
        }
    }

    /// Holds what is there now to what may be.
    pub(super) fn hold(&mut self, found: T, what: &str) {
        let is_right = found == self.known || self.perhaps.as_ref() == Some(&found);
        assert!(is_right, "{what}: {found:?} is there, and that is neither of {self:?}");
        self.is(found);
    }
}
