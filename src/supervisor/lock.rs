//! Locks that are held for a few lines, and what a panic under one means: nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What `mutex` guards, whoever panicked over it before.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
