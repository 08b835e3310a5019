//! What the demo's clients have been told: a file of the ids of all acknowledged transactions, so
//! that a demo which was killed can show that none of them is missing.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use parsec_bench::load::{Answer, Answers, Target};
use parsec_protocol::{Transaction, TxId};

use crate::failure::{Context, Failure};

const ID_BYTES: usize = 32;

/// The file of acknowledged ids. Cloning gives another handle to the same.
///
/// An id is written when its receipt is there. It survives the end of this process, but not a
/// power cut: it is about what `kill -9` may lose.
#[derive(Clone)]
pub(super) struct Journal {
    file: Arc<Mutex<File>>,
    earlier: Arc<Vec<TxId>>,
}

impl Journal {
    /// Opens the file and reads what earlier runs have written.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let what = format!("can't use {}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).context(&what)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).context(&what)?;
        let (whole, torn) = bytes.as_chunks::<ID_BYTES>();
        // A run that was killed may have left a part of an id; what follows must be aligned again.
        if !torn.is_empty() {
            file.set_len((whole.len() * ID_BYTES) as u64).context(&what)?;
        }
        let earlier = whole.iter().map(|id| TxId(*id)).collect();
        Ok(Self { file: Arc::new(Mutex::new(file)), earlier: Arc::new(earlier) })
    }

    /// How many ids earlier runs had written.
    pub(super) fn earlier(&self) -> usize {
        self.earlier.len()
    }

    fn add(&self, ids: &[u8]) -> std::io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(ids)
    }

    /// Makes the file durable.
    pub(super) fn flush(&self) -> Result<(), Failure> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync_data().context("can't sync the file of acknowledged transactions")
    }

    /// The ids of earlier runs that are not among `present`.
    pub(super) fn missing(&self, present: &BTreeSet<TxId>) -> Vec<TxId> {
        self.earlier.iter().filter(|id| !present.contains(id)).copied().collect()
    }

    /// The ids of earlier runs.
    pub(super) fn earlier_ids(&self) -> impl Iterator<Item = TxId> + '_ {
        self.earlier.iter().copied()
    }
}

/// A client whose receipts are written down.
#[derive(Clone)]
pub(super) struct Recorded<T> {
    target: T,
    journal: Journal,
}

impl<T> Recorded<T> {
    pub(super) fn new(target: T, journal: Journal) -> Self {
        Self { target, journal }
    }
}

impl<T: Target> Target for Recorded<T> {
    type Answers = RecordedAnswers<T::Answers>;

    async fn submit(&self, transactions: Vec<Transaction>) -> Result<Self::Answers, String> {
        let answers = self.target.submit(transactions).await?;
        Ok(RecordedAnswers { answers, journal: self.journal.clone() })
    }
}

/// Answers that are written down before they are handed on.
pub(super) struct RecordedAnswers<A> {
    answers: A,
    journal: Journal,
}

impl<A: Answers> Answers for RecordedAnswers<A> {
    async fn next(&mut self) -> Option<(usize, Answer)> {
        let (index, answer) = self.answers.next().await?;
        if let Answer::Receipt(receipt) = &answer
            && let Err(error) = self.journal.add(&receipt.id.0)
        {
            let reason = format!("the receipt could not be written down: {error}");
            return Some((index, Answer::Unknown { reason }));
        }
        Some((index, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_again_and_a_torn_id_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acknowledged");
        let journal = Journal::open(&path).unwrap();
        journal.add(&[1; 32]).unwrap();
        journal.add(&[2; 40]).unwrap();
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.earlier(), 2);
        assert_eq!(again.missing(&BTreeSet::from([TxId([1; 32])])), [TxId([2; 32])]);
        again.add(&[3; 32]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().earlier_ids().last(), Some(TxId([3; 32])));
    }
}
