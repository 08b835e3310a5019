//! The pool of a gateway: the transactions that it took and that are in no block yet.
//!
//! Nonces are as Ethereum has them: of each sender, one after the other is handed over to the
//! cluster, those behind a gap wait, and one that waits may be replaced by one that offers more.
//! What is handed over is not taken back: it is ordered within milliseconds.
//!
//! The cluster may order a transaction before one that its sender sent earlier, if that strayed. It
//! is invalid there, and is handed over again behind it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use parsec_ethereum::{Account, Pool as Shown, PoolTransaction};
use parsec_protocol::ErrorCode;

use super::signed::Signed;
use crate::backend::Refused;

/// What a pool holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolLimits {
    /// Transactions. If there are more, those that have waited longest behind a gap go first.
    pub(super) transactions: usize,
    /// Their raw bytes.
    pub(super) bytes: usize,
    /// Transactions of one sender that wait.
    pub(super) waiting_per_sender: usize,
    /// Senders without transactions whose accounts are remembered.
    pub(super) idle_senders: usize,
    /// How often a transaction is handed over before it is dropped.
    pub(super) attempts: u8,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            transactions: 65_536,
            bytes: 256 << 20,
            waiting_per_sender: 1_024,
            idle_senders: 65_536,
            attempts: 64,
        }
    }
}

/// Why a transaction is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Declined {
    /// Its sender's account has to be asked for first.
    AskAccount,
    /// For good.
    Refused(Refused),
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for an earlier nonce.
    Waiting,
    /// It is handed over, and its block is awaited.
    HandedOver,
    /// It was ordered before an earlier one: it waits until that is in a block.
    Early,
}

#[derive(Debug)]
struct Pooled {
    signed: Arc<Signed>,
    stage: Stage,
    attempts: u8,
    /// When it came, among the transactions of the pool.
    arrival: u64,
}

/// An account, and what it has in the pool.
#[derive(Debug)]
struct Sender {
    /// The nonce after its last transaction that is known to be in a block.
    nonce: u64,
    /// What it owned when it was asked for, less what its transactions since then may have cost.
    balance: U256,
    by_nonce: BTreeMap<u64, Pooled>,
    /// What these may cost.
    reserved: U256,
    /// All from `nonce` up to here are handed over.
    handed_over: u64,
    /// All from `nonce` up to here are there.
    next: u64,
    /// Its place among those without transactions.
    idle: Option<u64>,
}

impl Sender {
    fn new(account: &Account) -> Self {
        Self {
            nonce: account.nonce,
            balance: account.balance,
            by_nonce: BTreeMap::new(),
            reserved: U256::ZERO,
            handed_over: account.nonce,
            next: account.nonce,
            idle: None,
        }
    }

    fn insert(&mut self, nonce: u64, pooled: Pooled) {
        self.reserved += pooled.signed.cost;
        self.by_nonce.insert(nonce, pooled);
        self.extend();
    }

    fn remove(&mut self, nonce: u64) -> Option<Pooled> {
        let removed = self.by_nonce.remove(&nonce)?;
        self.reserved -= removed.signed.cost;
        self.next = self.next.min(nonce);
        self.handed_over = self.handed_over.min(nonce);
        Some(removed)
    }

    /// Nothing below this nonce is there or will be.
    fn raise(&mut self, nonce: u64) {
        self.nonce = self.nonce.max(nonce);
        self.handed_over = self.handed_over.max(self.nonce);
        self.next = self.next.max(self.nonce);
        self.extend();
    }

    fn extend(&mut self) {
        while self.by_nonce.contains_key(&self.next) {
            self.next += 1;
        }
    }

    /// What all that it has in the pool may cost, except the one with this nonce.
    fn reserved_without(&self, nonce: u64) -> U256 {
        let own = self.by_nonce.get(&nonce).map_or(U256::ZERO, |pooled| pooled.signed.cost);
        self.reserved - own
    }
}

/// The pool. It does nothing by itself: what is to be handed over is taken from it with
/// [`next_handed_over`](Self::next_handed_over).
///
/// **Invariant:** `by_hash` has the transactions of all senders; `waiting` those of them that are
/// not handed over, by arrival.
///
/// **Invariant:** a sender has no transaction with a nonce below its account's.
#[derive(Debug, Default)]
pub(super) struct Pool {
    limits: PoolLimits,
    senders: BTreeMap<Address, Sender>,
    by_hash: BTreeMap<B256, (Address, u64)>,
    waiting: BTreeMap<u64, (Address, u64)>,
    idle: BTreeMap<u64, Address>,
    arrivals: u64,
    bytes: usize,
    /// Those of them that wait.
    waiting_bytes: usize,
    handed_over: VecDeque<Arc<Signed>>,
}

impl Pool {
    /// Whether the account of a sender is known.
    pub(super) fn knows(&self, sender: &Address) -> bool {
        self.senders.contains_key(sender)
    }

    /// An account was asked for. Returns false if it is older than what is known already: then it
    /// has to be asked for again.
    pub(super) fn on_account(&mut self, address: Address, account: &Account) -> bool {
        if !self.knows(&address) {
            self.senders.insert(address, Sender::new(account));
            self.settle(address);
            return true;
        }
        self.advance(address, account.nonce);
        let Some(sender) = self.senders.get_mut(&address) else { return false };
        let is_current = sender.nonce == account.nonce;
        if is_current {
            sender.balance = account.balance;
        }
        self.settle(address);
        is_current
    }

    /// Takes a transaction. `is_fresh` if its sender's account was asked for because of it.
    ///
    /// # Errors
    /// Says why it is not taken.
    pub(super) fn insert(&mut self, signed: Signed, is_fresh: bool) -> Result<(), Declined> {
        if self.by_hash.contains_key(&signed.hash) {
            let known = refuse(ErrorCode::AlreadyExists, "already known".into());
            return Err(Declined::Refused(Refused { known: Some(signed.hash), ..known }));
        }
        let Some(sender) = self.senders.get(&signed.sender) else {
            return Err(Declined::AskAccount);
        };
        check(sender, &signed, is_fresh)?;
        let replaced = self.replaced(sender, &signed)?;
        // ORDER: what is refused after all has replaced nothing.
        self.make_room(&signed)?;
        if let Some(replaced) = replaced {
            self.remove(replaced);
        }
        self.put(signed);
        Ok(())
    }

    /// The transaction whose place it takes.
    fn replaced(&self, sender: &Sender, signed: &Signed) -> Result<Option<B256>, Declined> {
        let Some(old) = sender.by_nonce.get(&signed.nonce) else {
            let waiting = sender.by_nonce.range(sender.next..).count();
            if signed.nonce > sender.next && waiting >= self.limits.waiting_per_sender {
                let detail = format!(
                    "txpool is full: {} transactions of this account wait for earlier nonces",
                    self.limits.waiting_per_sender
                );
                return Err(Declined::Refused(refuse(ErrorCode::Busy, detail)));
            }
            return Ok(None);
        };
        let underpriced = |why: String| {
            let detail = format!("replacement transaction underpriced{why}");
            Err(Declined::Refused(refuse(ErrorCode::Underpriced, detail)))
        };
        match old.stage {
            Stage::HandedOver => {
                let hash = old.signed.hash;
                underpriced(format!(": {hash} has the same nonce and is being ordered already"))
            }
            _ if !signed.outbids(&old.signed) => underpriced(String::new()),
            _ => Ok(Some(old.signed.hash)),
        }
    }

    /// Drops what has waited longest until there is room for one more.
    fn make_room(&mut self, signed: &Signed) -> Result<(), Declined> {
        let (most, most_bytes) = (self.limits.transactions, self.limits.bytes);
        let new = signed.raw.len();
        // What is handed over stays, so nothing is dropped where that would not do.
        if self.by_hash.len() - self.waiting.len() >= most
            || self.bytes - self.waiting_bytes + new > most_bytes
        {
            return Err(Declined::Refused(refuse(ErrorCode::Busy, "txpool is full".into())));
        }
        while self.by_hash.len() >= most || self.bytes + new > most_bytes {
            let oldest = self.waiting.first_key_value().map(|(_, place)| *place);
            let Some((sender, nonce)) = oldest else { break };
            let oldest = self.senders.get(&sender).and_then(|sender| sender.by_nonce.get(&nonce));
            let Some(hash) = oldest.map(|pooled| pooled.signed.hash) else { break };
            self.drop_one(hash);
        }
        Ok(())
    }

    fn put(&mut self, signed: Signed) {
        let (address, nonce) = (signed.sender, signed.nonce);
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.by_hash.insert(signed.hash, (address, nonce));
        self.waiting.insert(arrival, (address, nonce));
        self.bytes += signed.raw.len();
        self.waiting_bytes += signed.raw.len();
        let pooled =
            Pooled { signed: Arc::new(signed), stage: Stage::Waiting, attempts: 0, arrival };
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.insert(nonce, pooled);
        }
        self.settle(address);
    }

    /// The next transaction to be handed over to the cluster, in this order.
    pub(super) fn next_handed_over(&mut self) -> Option<Arc<Signed>> {
        self.handed_over.pop_front()
    }

    /// A transaction is in a block, whoever sent it there.
    pub(super) fn on_block_transaction(&mut self, hash: B256, address: Address, nonce: u64) {
        let is_ours = self.by_hash.contains_key(&hash);
        self.advance(address, nonce.saturating_add(1));
        if let Some(sender) = self.senders.get_mut(&address)
            && !is_ours
        {
            // What it cost is not known here.
            sender.balance = U256::ZERO;
        }
        self.settle(address);
    }

    /// The cluster refused a transaction that was handed over.
    pub(super) fn on_refused(&mut self, hash: B256) {
        self.drop_one(hash);
    }

    /// A transaction that was handed over had no effect where it was ordered.
    pub(super) fn on_invalid(&mut self, hash: B256, code: ErrorCode) {
        let most = self.limits.attempts;
        let Some((address, nonce)) = self.by_hash.get(&hash).copied() else { return };
        let Some(sender) = self.senders.get_mut(&address) else { return };
        match sender.by_nonce.get_mut(&nonce) {
            Some(pooled) if code == ErrorCode::NonceTooHigh && pooled.attempts < most => {
                pooled.stage = Stage::Early;
                sender.handed_over = sender.handed_over.min(nonce);
                self.waiting.insert(pooled.arrival, (address, nonce));
                self.waiting_bytes += pooled.signed.raw.len();
                self.settle(address);
            }
            _ => self.drop_one(hash),
        }
    }

    fn drop_one(&mut self, hash: B256) {
        let Some((address, _)) = self.by_hash.get(&hash).copied() else { return };
        self.remove(hash);
        self.settle(address);
    }

    /// Takes a transaction out. The sender has to be settled afterwards.
    fn remove(&mut self, hash: B256) -> Option<Arc<Signed>> {
        let (address, nonce) = self.by_hash.remove(&hash)?;
        let pooled = self.senders.get_mut(&address)?.remove(nonce)?;
        self.bytes -= pooled.signed.raw.len();
        if self.waiting.remove(&pooled.arrival).is_some() {
            self.waiting_bytes -= pooled.signed.raw.len();
        }
        Some(pooled.signed)
    }

    /// All of a sender's transactions below this nonce are in blocks.
    fn advance(&mut self, address: Address, nonce: u64) {
        let Some(sender) = self.senders.get(&address) else { return };
        let done = sender.by_nonce.range(..nonce.max(sender.nonce));
        let done: Vec<_> = done.map(|(_, pooled)| pooled.signed.hash).collect();
        let done: Vec<_> = done.into_iter().filter_map(|hash| self.remove(hash)).collect();
        let Some(sender) = self.senders.get_mut(&address) else { return };
        let cost = done.iter().fold(U256::ZERO, |sum, tx| sum.saturating_add(tx.cost));
        sender.balance = sender.balance.saturating_sub(cost);
        sender.raise(nonce);
    }

    /// Hands over what has its turn, after a change to a sender.
    fn settle(&mut self, address: Address) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        let mut is_alone = sender.handed_over == sender.nonce;
        let turns = sender.by_nonce.range_mut(sender.handed_over..sender.next);
        for (nonce, pooled) in turns {
            match pooled.stage {
                // One before it is under way, and may be the one that strayed.
                Stage::Early if !is_alone => break,
                Stage::HandedOver => is_alone = false,
                Stage::Early | Stage::Waiting => {
                    pooled.stage = Stage::HandedOver;
                    pooled.attempts = pooled.attempts.saturating_add(1);
                    self.waiting.remove(&pooled.arrival);
                    self.waiting_bytes -= pooled.signed.raw.len();
                    self.handed_over.push_back(pooled.signed.clone());
                }
            }
            sender.handed_over = nonce + 1;
        }
        self.settle_idle(address);
    }

    /// Remembers who has no transactions; forgets who has had none for longest if there are many.
    fn settle_idle(&mut self, address: Address) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        if let Some(idle) = sender.idle.take() {
            self.idle.remove(&idle);
        }
        if sender.by_nonce.is_empty() {
            self.arrivals += 1;
            sender.idle = Some(self.arrivals);
            self.idle.insert(self.arrivals, address);
        }
        if self.idle.len() > self.limits.idle_senders
            && let Some((_, forgotten)) = self.idle.pop_first()
        {
            self.senders.remove(&forgotten);
        }
    }

    /// A transaction of the pool.
    pub(super) fn get(&self, hash: &B256) -> Option<PoolTransaction> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        Some(self.senders.get(sender)?.by_nonce.get(nonce)?.signed.shown())
    }

    /// A transaction that the cluster has accepted, if that is the first time.
    pub(super) fn newly_accepted(&self, hash: &B256) -> Option<PoolTransaction> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        let pooled = self.senders.get(sender)?.by_nonce.get(nonce)?;
        (pooled.attempts == 1).then(|| pooled.signed.shown())
    }

    /// Whether a transaction is on its way to the cluster or there.
    pub(super) fn is_handed_over(&self, hash: &B256) -> bool {
        let place = self.by_hash.get(hash);
        let pooled =
            place.and_then(|(sender, nonce)| self.senders.get(sender)?.by_nonce.get(nonce));
        pooled.is_some_and(|pooled| pooled.stage == Stage::HandedOver)
    }

    /// The nonce after all that a sender has in the pool without a gap, if its account has `nonce`.
    pub(super) fn next_nonce(&self, address: &Address, nonce: u64) -> u64 {
        self.senders.get(address).map_or(nonce, |sender| sender.next.max(nonce))
    }

    /// All transactions, by sender and nonce.
    pub(super) fn shown(&self) -> Shown {
        let mut shown = Shown::default();
        for (address, sender) in &self.senders {
            for (nonce, pooled) in &sender.by_nonce {
                let part = match *nonce < sender.next {
                    true => &mut shown.pending,
                    false => &mut shown.queued,
                };
                part.entry(*address).or_default().insert(*nonce, pooled.signed.shown());
            }
        }
        shown
    }
}

/// Checks a transaction against its sender's account.
fn check(sender: &Sender, signed: &Signed, is_fresh: bool) -> Result<(), Declined> {
    let (next, nonce) = (sender.nonce, signed.nonce);
    if nonce < next {
        let detail = format!("nonce too low: next nonce {next}, tx nonce {nonce}");
        return Err(Declined::Refused(refuse(ErrorCode::NonceTooLow, detail)));
    }
    if nonce == u64::MAX {
        // EIP-2681: there is no nonce after it.
        let detail = "nonce has max value".into();
        return Err(Declined::Refused(refuse(ErrorCode::Malformed, detail)));
    }
    let reserved = sender.reserved_without(nonce);
    let needed = reserved.saturating_add(signed.cost);
    if needed <= sender.balance {
        return Ok(());
    }
    if !is_fresh {
        return Err(Declined::AskAccount);
    }
    let (balance, cost, overshot) = (sender.balance, signed.cost, needed - sender.balance);
    let queued = match reserved.is_zero() {
        true => String::new(),
        false => format!(" queued cost {reserved},"),
    };
    let detail = format!(
        "insufficient funds for gas * price + value: balance {balance},{queued} tx cost {cost}, \
         overshot {overshot}"
    );
    Err(Declined::Refused(refuse(ErrorCode::InsufficientFunds, detail)))
}

fn refuse(code: ErrorCode, detail: String) -> Refused {
    Refused { code, detail, known: None }
}

#[cfg(test)]
mod tests;
