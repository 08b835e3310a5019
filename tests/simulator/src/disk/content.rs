//! What a file holds: as its host sees it, and as a power cut would leave it.

use std::ops::Range;

use crate::random::Random;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The bytes of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// What reads return.
    current: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// How many bytes from the start are known to be the same in both.
    same: usize,
    /// What a failed sync has dropped: it is read as if it were there, and no later sync writes it.
    dropped: Vec<Range<usize>>,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.current
    }

    /// How many bytes from the start a power cut can't take.
    pub(super) fn durable_len(&self) -> usize {
        self.same
    }

    /// Writes over what is there, and beyond its end. What is written is to be synced again, even
    /// if it is the same as before.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.current.resize(self.current.len().max(end), 0);
        self.current[at..end].copy_from_slice(bytes);
        self.same = self.same.min(at);
        let dropped = std::mem::take(&mut self.dropped).into_iter();
        let left =
            |range: Range<usize>| [range.start..range.end.min(at), range.start.max(end)..range.end];
        self.dropped = dropped.flat_map(left).filter(|range| !range.is_empty()).collect();
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.current.truncate(length);
        self.same = self.same.min(length);
        self.dropped.retain(|range| range.start < length);
    }

    pub(super) fn sync(&mut self) {
        self.durable.truncate(self.same);
        self.durable.extend_from_slice(&self.current[self.same..]);
        self.same = self.current.len();
        for range in &self.dropped {
            let end = range.end.min(self.durable.len());
            self.durable[range.start..end].fill(0);
            self.same = self.same.min(range.start);
        }
    }

    /// A sync fails: what it should have written is gone, but nobody who reads can see it.
    pub(super) fn fail_sync(&mut self) {
        if self.same < self.current.len() {
            self.dropped.push(self.same..self.current.len());
        }
    }

    /// The power is cut: what was not synced is there, or not, or in parts.
    pub(super) fn lose(&mut self, random: &mut Random) {
        let only_appended = self.durable.len() == self.same && self.dropped.is_empty();
        match random.below(4) {
            0 => self.current.clone_from(&self.durable),
            // Written over with what was there already, it stays what it is.
            _ if self.current == self.durable => {}
            1 if self.dropped.is_empty() => {}
            2 if only_appended => {
                let kept = random.below((self.current.len() - self.same) as u64 + 1);
                let kept = usize::try_from(kept).unwrap_or(usize::MAX);
                self.current.truncate(self.same.saturating_add(kept));
            }
            3 if only_appended => self.mix_sectors(random),
            _ => self.current.clone_from(&self.durable),
        }
        self.settle();
    }

    /// Some sectors of what was not synced were written, and others not.
    fn mix_sectors(&mut self, random: &mut Random) {
        let mut at = self.same;
        while at < self.current.len() {
            let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(self.current.len());
            if random.chance(500) {
                self.current[at..end].fill(0);
            }
            at = end;
        }
    }

    fn settle(&mut self) {
        self.durable.clone_from(&self.current);
        self.same = self.current.len();
        self.dropped.clear();
    }

    /// Flips bits of a byte, wherever it is held.
    pub(super) fn flip(&mut self, at: usize, mask: u8) {
        for bytes in [&mut self.current, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_be_torn() {
        let mut lengths = std::collections::BTreeSet::new();
        let mut has_holes = false;
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; 1_000]);
            content.sync();
            content.write(1_000, &[2; 2_000]);
            content.lose(&mut Random::new(seed, 0));
            assert_eq!(content.bytes()[..1_000], [1; 1_000]);
            assert_eq!(content.durable_len(), content.len());
            lengths.insert(content.len());
            has_holes |= content.bytes().contains(&0);
        }
        assert!(has_holes && lengths.len() > 10, "{lengths:?}");
    }

    #[test]
    fn what_a_failed_sync_dropped_is_read_and_never_durable() {
        let mut content = Content::default();
        content.write(0, &[1; 10]);
        content.fail_sync();
        content.write(10, &[2; 10]);
        content.sync();
        assert_eq!(content.bytes(), [[1; 10], [2; 10]].concat());
        assert_eq!(content.durable_len(), 0);
        for seed in 0..20 {
            let mut cut = content.clone();
            cut.lose(&mut Random::new(seed, 0));
            assert_eq!(cut.bytes(), [[0; 10], [2; 10]].concat());
        }
    }

    #[test]
    fn a_truncation_that_was_not_synced_may_be_undone() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut content = Content::default();
            content.write(0, &[1; 10]);
            content.sync();
            content.truncate(4);
            content.lose(&mut Random::new(seed, 0));
            seen.insert(content.len());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [4, 10]);
    }
}
