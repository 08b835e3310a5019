//! The transactions that this gateway submitted and that are in no block yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use alloy_consensus::Transaction as _;
use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_ethereum::{Pool, PoolTransaction};
use tokio::sync::Notify;

use crate::Transaction;

/// Most transactions that are remembered. Those that are longest in it are forgotten first: they
/// are not lost, only not shown.
const WAITING_MAX: usize = 65_536;

/// The transactions that this gateway submitted and that are in no block yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    list: Mutex<List>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct List {
    by_hash: BTreeMap<B256, (u64, Arc<Submitted>)>,
    by_age: BTreeMap<u64, B256>,
    added: u64,
}

/// A submitted transaction. Who sent it is found out when it is asked for: most are done before.
#[derive(Debug)]
pub(super) struct Submitted {
    hash: B256,
    raw: Bytes,
    decoded: OnceLock<Option<Arc<PoolTransaction>>>,
}

impl Submitted {
    /// The transaction, with its sender.
    pub(super) fn transaction(&self) -> Option<Arc<PoolTransaction>> {
        self.decoded.get_or_init(|| self.decode().map(Arc::new)).clone()
    }

    fn decode(&self) -> Option<PoolTransaction> {
        // The cluster has accepted it, so it decodes.
        let decoded = Transaction::decode_2718_exact(&self.raw).ok()?;
        let sender = decoded.recover_signer().ok()?;
        let raw = self.raw.clone();
        Some(PoolTransaction { hash: self.hash, sender, nonce: decoded.nonce(), raw })
    }
}

impl Waiting {
    fn list(&self) -> MutexGuard<'_, List> {
        // A panic between its changes would leave something to be shown too long: no harm.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a transaction; none if it is there.
    pub(super) fn add(&self, hash: B256, raw: Bytes) -> Option<Arc<Submitted>> {
        let mut list = self.list();
        if list.by_hash.contains_key(&hash) {
            return None;
        }
        if list.by_hash.len() >= WAITING_MAX
            && let Some((_, oldest)) = list.by_age.pop_first()
        {
            list.by_hash.remove(&oldest);
        }
        list.added += 1;
        let age = list.added;
        let submitted = Arc::new(Submitted { hash, raw, decoded: OnceLock::new() });
        list.by_hash.insert(hash, (age, submitted.clone()));
        list.by_age.insert(age, hash);
        drop(list);
        self.changed.notify_waiters();
        Some(submitted)
    }

    /// Returns when a transaction was added after the call of this.
    pub(super) fn added(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    /// The transaction is done.
    pub(super) fn remove(&self, hash: B256) {
        let mut list = self.list();
        if let Some((age, _)) = list.by_hash.remove(&hash) {
            list.by_age.remove(&age);
        }
    }

    /// One of them.
    pub(super) fn get(&self, hash: B256) -> Option<PoolTransaction> {
        let found = self.list().by_hash.get(&hash).map(|(_, submitted)| submitted.clone());
        found?.transaction().map(|transaction| (*transaction).clone())
    }

    fn all(&self) -> Vec<Arc<PoolTransaction>> {
        let all: Vec<_> =
            self.list().by_hash.values().map(|(_, submitted)| submitted.clone()).collect();
        all.iter().filter_map(|submitted| submitted.transaction()).collect()
    }

    /// The nonce that comes after all that wait, for an account that has `nonce` now.
    pub(super) fn next_nonce(&self, sender: Address, nonce: u64) -> u64 {
        let all = self.all();
        let mut nonces: Vec<_> =
            all.iter().filter(|tx| tx.sender == sender).map(|tx| tx.nonce).collect();
        nonces.sort_unstable();
        nonces.into_iter().fold(nonce, |next, nonce| if nonce == next { next + 1 } else { next })
    }

    /// All of them, by sender and nonce.
    pub(super) fn pool(&self) -> Pool {
        let mut pool = Pool::default();
        for transaction in self.all() {
            let of_sender = pool.pending.entry(transaction.sender).or_default();
            of_sender.insert(transaction.nonce, (*transaction).clone());
        }
        pool
    }
}
