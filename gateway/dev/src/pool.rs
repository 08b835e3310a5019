//! The transactions that wait for a block.

use std::collections::{BTreeMap, BinaryHeap};

use alloy_primitives::{Address, B256};
use parsec_gateway::Refused;
use parsec_protocol::ErrorCode;

use crate::transaction::{Submission, refused};

/// Most transactions that wait.
pub const POOL_TRANSACTIONS_MAX: usize = 100_000;

/// What decides which of two transactions of different senders comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The one that offers more for each unit of gas, then the one that came first.
    #[default]
    Fees,
    /// The one that came first.
    Arrival,
}

/// A transaction that waits, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) transaction: Submission,
    arrival: u64,
}

/// The transactions that wait for a block.
///
/// **Invariant:** both indices hold the same transactions, at most one for a sender and nonce.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    by_sender: BTreeMap<Address, BTreeMap<u64, Waiting>>,
    by_hash: BTreeMap<B256, (Address, u64)>,
    arrivals: u64,
}

impl Pool {
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    pub(crate) fn get(&self, hash: &B256) -> Option<&Submission> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        Some(&self.by_sender.get(sender)?.get(nonce)?.transaction)
    }

    /// Takes a transaction, in the place of one with the same sender and nonce if it offers more.
    ///
    /// # Errors
    /// It is here already, offers too little, or there is no place.
    pub(crate) fn insert(&mut self, transaction: Submission) -> Result<(), Refused> {
        let (sender, nonce, hash) = (transaction.sender, transaction.nonce, transaction.hash);
        if self.by_hash.contains_key(&hash) {
            let known = refused(ErrorCode::AlreadyExists, "already known");
            return Err(Refused { known: Some(hash), ..known });
        }
        if let Some(old) = self.by_sender.get(&sender).and_then(|nonces| nonces.get(&nonce)) {
            if transaction.max_fee <= old.transaction.max_fee {
                let detail = "replacement transaction underpriced";
                return Err(refused(ErrorCode::Underpriced, detail));
            }
            self.by_hash.remove(&old.transaction.hash);
        } else if self.len() >= POOL_TRANSACTIONS_MAX {
            return Err(refused(ErrorCode::Busy, "txpool is full"));
        }
        self.arrivals += 1;
        self.by_hash.insert(hash, (sender, nonce));
        let waiting = Waiting { transaction, arrival: self.arrivals };
        self.by_sender.entry(sender).or_default().insert(nonce, waiting);
        Ok(())
    }

    /// Takes a transaction out.
    pub(crate) fn remove(&mut self, hash: &B256) -> Option<Submission> {
        let (sender, nonce) = self.by_hash.remove(hash)?;
        let nonces = self.by_sender.get_mut(&sender)?;
        let removed = nonces.remove(&nonce)?;
        if nonces.is_empty() {
            self.by_sender.remove(&sender);
        }
        Some(removed.transaction)
    }

    /// Takes all transactions of a sender out whose nonce is below `nonce`, or all.
    pub(crate) fn remove_of(&mut self, sender: &Address, below: Option<u64>) -> usize {
        let Some(nonces) = self.by_sender.get_mut(sender) else { return 0 };
        let kept = below.map_or_else(BTreeMap::new, |below| nonces.split_off(&below));
        let removed = std::mem::replace(nonces, kept);
        if nonces.is_empty() {
            self.by_sender.remove(sender);
        }
        removed.values().for_each(|waiting| {
            self.by_hash.remove(&waiting.transaction.hash);
        });
        removed.len()
    }

    /// Takes all out.
    pub(crate) fn clear(&mut self) {
        self.by_sender.clear();
        self.by_hash.clear();
    }

    /// The senders, in order.
    pub(crate) fn senders(&self) -> impl Iterator<Item = &Address> {
        self.by_sender.keys()
    }

    /// The transactions of a sender in the order of nonces.
    pub(crate) fn of(&self, sender: &Address) -> impl Iterator<Item = (u64, &Submission)> {
        let nonces = self.by_sender.get(sender).into_iter().flatten();
        nonces.map(|(nonce, waiting)| (*nonce, &waiting.transaction))
    }

    /// The first nonce from `nonce` on that a sender has not used here.
    pub(crate) fn next_nonce(&self, sender: &Address, nonce: u64) -> u64 {
        let Some(nonces) = self.by_sender.get(sender) else { return nonce };
        let mut next = nonce;
        for known in nonces.range(nonce..).map(|(known, _)| *known) {
            if known != next {
                break;
            }
            next += 1;
        }
        next
    }

    /// The transactions that follow their senders' nonces without a gap, in the order in which
    /// they are to be executed.
    pub(crate) fn ready(&self, order: Order, nonce: impl Fn(&Address) -> u64) -> Vec<Submission> {
        let mut heads = BinaryHeap::new();
        for (sender, nonces) in &self.by_sender {
            heads.extend(nonces.get(&nonce(sender)).map(|waiting| head(order, waiting, sender)));
        }
        let mut ready = Vec::new();
        while let Some(Head { sender, nonce, .. }) = heads.pop() {
            let Some(nonces) = self.by_sender.get(&sender) else { continue };
            if let Some(waiting) = nonces.get(&nonce) {
                ready.push(waiting.transaction.clone());
            }
            let next = nonce.checked_add(1).and_then(|next| nonces.get(&next));
            heads.extend(next.map(|waiting| head(order, waiting, &sender)));
        }
        ready
    }
}

/// A sender's next transaction, ordered so that the greatest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    fee: u128,
    arrival: std::cmp::Reverse<u64>,
    sender: Address,
    nonce: u64,
}

fn head(order: Order, waiting: &Waiting, sender: &Address) -> Head {
    let fee = match order {
        Order::Fees => waiting.transaction.max_fee,
        Order::Arrival => 0,
    };
    let arrival = std::cmp::Reverse(waiting.arrival);
    Head { fee, arrival, sender: *sender, nonce: waiting.transaction.nonce }
}
