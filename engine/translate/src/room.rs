//! How much of the host's memory the translators of a machine take together.
//!
//! A CPU may take all of it while the others are idle. When it is full, whoever has more than a fair share
//! and wants more drops its translations. What translations there are can be seen in no result.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the translators of a machine may take, as long as that is more than the least share.
const TOTAL_BYTES: usize = 8 << 20;
/// What each of few CPUs may have in any case.
const SHARE_BYTES_MIN: usize = 2 << 20;
/// What each of many may have: that adds a twentieth to the time of a boot.
const SHARE_BYTES_LEAST: usize = 1 << 20;
pub(crate) const FEW_CPUS: usize = 4;

/// The part of one translator.
#[derive(Debug)]
pub struct Room {
    taken_by_all: Arc<AtomicUsize>,
    total_bytes: usize,
    share_bytes: usize,
    taken: usize,
}

impl Room {
    /// For one of `cpus` CPUs; clones are for the others.
    pub fn shared_by(cpus: usize) -> Room {
        let least = if cpus > FEW_CPUS { SHARE_BYTES_LEAST } else { SHARE_BYTES_MIN };
        let share_bytes = (TOTAL_BYTES / cpus.max(1)).max(least);
        Room { taken_by_all: Arc::default(), total_bytes: TOTAL_BYTES, share_bytes, taken: 0 }
    }

    /// For a translator that shares with nobody.
    pub fn of(bytes: usize) -> Room {
        Room { taken_by_all: Arc::default(), total_bytes: bytes, share_bytes: bytes, taken: 0 }
    }

    /// Bytes that this translator may come to take.
    pub fn bytes_max(&self) -> usize {
        self.total_bytes
    }

    /// Notes that this translator takes `bytes` bytes now.
    pub fn set_taken(&mut self, bytes: usize) {
        // Wraps where `bytes` is less than before, and is right all the same.
        self.taken_by_all.fetch_add(bytes.wrapping_sub(self.taken), Relaxed);
        self.taken = bytes;
    }

    /// Whether there are `bytes` bytes more for this translator.
    pub fn has(&self, bytes: usize) -> bool {
        self.taken + bytes <= self.share_bytes || self.taken_by_all.load(Relaxed) + bytes <= self.total_bytes
    }
}

impl Clone for Room {
    fn clone(&self) -> Room {
        let Room { taken_by_all, total_bytes, share_bytes, taken: _ } = self;
        Room {
            taken_by_all: Arc::clone(taken_by_all),
            total_bytes: *total_bytes,
            share_bytes: *share_bytes,
            taken: 0,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.set_taken(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_take_what_the_others_do_not_and_each_has_its_share() {
        let mut busy = Room::shared_by(4);
        let mut late = busy.clone();
        busy.set_taken(TOTAL_BYTES - 1);
        assert!(busy.has(1) && !busy.has(2));
        assert!(late.has(SHARE_BYTES_MIN) && !late.has(SHARE_BYTES_MIN + 1));
        late.set_taken(10);
        assert!(!busy.has(1));
        busy.set_taken(0);
        assert!(late.has(TOTAL_BYTES - 10) && !late.has(TOTAL_BYTES - 9));
        drop(late);
        assert!(busy.has(TOTAL_BYTES));
    }
}
