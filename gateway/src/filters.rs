//! Filters: what a client wants to hear of, and what it has heard.
//!
//! A filter remembers the chain as its client saw it last. What is new is the difference to the
//! chain of now, so that nothing is collected meanwhile, and blocks that were taken back are
//! noticed whatever happened in between.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, U128};
use parsec_ethereum::PoolTransaction;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use crate::chain::{ChainError, Past};
use crate::limits::Limits;
use crate::methods::Criteria;
use crate::rpc::RpcError;
use crate::shape::{LogJson, TransactionJson};

/// What a filter tells of.
pub(crate) enum Subject {
    Blocks,
    Logs(Criteria),
    Pending { arrivals: broadcast::Receiver<Arc<PoolTransaction>>, full: bool },
}

/// What is new to a filter.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum News {
    Hashes(Vec<B256>),
    Logs(Vec<LogJson>),
    Transactions(Vec<TransactionJson>),
}

struct Filter {
    subject: Subject,
    seen: Arc<Past>,
    used: Instant,
}

/// The filters of all clients.
pub(crate) struct Filters {
    by_id: Mutex<BTreeMap<u128, Filter>>,
    most: usize,
    idle_max: Duration,
}

/// What a filter has to look at, to say what is new.
pub(crate) enum Due {
    Blocks { seen: Arc<Past> },
    Logs { seen: Arc<Past>, criteria: Criteria },
    Pending { arrived: Vec<Arc<PoolTransaction>>, full: bool },
}

impl Filters {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            by_id: Mutex::new(BTreeMap::new()),
            most: limits.filters_max,
            idle_max: limits.filter_idle_max,
        }
    }

    /// The filters that somebody still uses.
    fn used(&self) -> MutexGuard<'_, BTreeMap<u128, Filter>> {
        let mut filters = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        filters.retain(|_, filter| filter.used.elapsed() < self.idle_max);
        filters
    }

    /// Adds a filter, for what happens after `seen`.
    pub(crate) fn add(&self, subject: Subject, seen: Arc<Past>) -> Result<U128, RpcError> {
        let mut filters = self.used();
        if filters.len() >= self.most {
            return Err(RpcError::limit(format!("too many filters, at most {}", self.most)));
        }
        let id = random_id();
        filters.insert(id, Filter { subject, seen, used: Instant::now() });
        Ok(U128::from(id))
    }

    /// Removes a filter; whether there was one.
    pub(crate) fn remove(&self, id: U128) -> bool {
        self.used().remove(&id.to::<u128>()).is_some()
    }

    /// What a filter has to look at to tell what is new until `now`. It counts as told.
    pub(crate) fn due(&self, id: U128, now: &Arc<Past>) -> Result<Due, RpcError> {
        let mut filters = self.used();
        let filter = filters.get_mut(&id.to::<u128>()).ok_or_else(not_found)?;
        filter.used = Instant::now();
        let seen = std::mem::replace(&mut filter.seen, Arc::clone(now));
        Ok(match &mut filter.subject {
            Subject::Blocks => Due::Blocks { seen },
            Subject::Logs(criteria) => Due::Logs { seen, criteria: criteria.clone() },
            Subject::Pending { arrivals, full } => {
                Due::Pending { arrived: arrived(arrivals), full: *full }
            }
        })
    }

    /// What a filter for logs looks for.
    pub(crate) fn criteria(&self, id: U128) -> Result<Criteria, RpcError> {
        let mut filters = self.used();
        match filters.get_mut(&id.to::<u128>()) {
            Some(Filter { subject: Subject::Logs(criteria), used, .. }) => {
                *used = Instant::now();
                Ok(criteria.clone())
            }
            _ => Err(not_found()),
        }
    }
}

fn not_found() -> RpcError {
    RpcError::server("filter not found")
}

/// What arrived since it was last asked. What was too much to be kept is left out: it is gone
/// from the pool by now.
fn arrived(arrivals: &mut broadcast::Receiver<Arc<PoolTransaction>>) -> Vec<Arc<PoolTransaction>> {
    let mut arrived = Vec::new();
    loop {
        match arrivals.try_recv() {
            Ok(transaction) => arrived.push(transaction),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return arrived,
        }
    }
}

/// A number that nobody can guess: the id of a filter or subscription gives access to it.
pub(crate) fn random_id() -> u128 {
    // The keys of a new state come from the system's source of randomness.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    // The highest bit is set so that all ids have as many digits, none of them lost at the front.
    (half() << 64) | half() | (1 << 127)
}

/// The number of the last block that two states of a chain have in common.
pub(crate) fn common(old: &Past, new: &Past) -> Result<u64, ChainError> {
    let same = |number: u64| -> Result<bool, ChainError> {
        let hash = |past: &Past| Ok(past.header(number)?.map(|head| head.hash));
        Ok::<_, ChainError>(hash(old)? == hash(new)?)
    };
    let last = old.head().number.min(new.head().number);
    if same(last)? {
        return Ok(last);
    }
    // They agree up to somewhere, and nowhere after it. They always share the genesis.
    let (mut agree, mut differ) = (0, last);
    while differ - agree > 1 {
        let middle = agree + (differ - agree) / 2;
        match same(middle)? {
            true => agree = middle,
            false => differ = middle,
        }
    }
    Ok(agree)
}
