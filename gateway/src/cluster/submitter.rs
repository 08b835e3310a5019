//! Hands over what the pool says, and tells the pool what became of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Decodable2718 as _;
use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_client::{Client, Error, Submission};
use parsec_ethereum::{Account, Block, Pool as Shown, PoolTransaction};
use parsec_protocol::{ErrorCode, Outcome, Receipt, RuntimeId, Transaction, TxId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::pool::{Declined, Pool};
use super::signed::Signed;
use crate::backend::Refused;

/// Most transactions that are handed over as one submission.
const SUBMISSION_MAX: usize = 512;

/// How many arrivals of transactions a slow listener may be behind.
const ARRIVALS_MAX: usize = 4_096;

type Verdict = Result<B256, Refused>;

/// The pool, and the way from it to the cluster. Clones share both.
#[derive(Clone)]
pub(super) struct Submitter(Arc<Shared>);

struct Shared {
    client: Client,
    ways: Mutex<Ways>,
    arrivals: broadcast::Sender<Arc<PoolTransaction>>,
}

struct Ways {
    pool: Pool,
    /// Who waits for the cluster's verdict on a transaction.
    asking: BTreeMap<B256, oneshot::Sender<Verdict>>,
    handed_over: mpsc::UnboundedSender<Arc<Signed>>,
}

/// A transaction that is in the pool.
pub(super) struct Submitted {
    hash: B256,
    /// None if it waits for its turn: then nothing more is known of it.
    verdict: Option<oneshot::Receiver<Verdict>>,
}

impl Submitted {
    /// What the cluster says of it.
    pub(super) async fn verdict(self) -> Verdict {
        match self.verdict {
            None => Ok(self.hash),
            Some(verdict) => verdict.await.unwrap_or_else(|_| Err(refused(&Error::Stopped))),
        }
    }
}

impl Ways {
    /// Passes on what the pool hands over.
    fn pass_on(&mut self) {
        while let Some(signed) = self.pool.next_handed_over() {
            // Where nobody takes it any more, everything is being stopped.
            self.handed_over.send(signed).ok();
        }
    }
}

impl Submitter {
    /// A submitter with an empty pool, which hands over to `client` for as long as it exists.
    pub(super) fn start(client: Client) -> Self {
        let (arrivals, _) = broadcast::channel(ARRIVALS_MAX);
        let (handed_over, received) = mpsc::unbounded_channel();
        let ways = Ways { pool: Pool::default(), asking: BTreeMap::new(), handed_over };
        let shared = Shared { client: client.clone(), ways: Mutex::new(ways), arrivals };
        let submitter = Self(Arc::new(shared));
        tokio::spawn(hand_over(client, Arc::downgrade(&submitter.0), received));
        submitter
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        // A pool in which something panicked would have to be thrown away, with transactions that
        // are well; it does not panic.
        self.0.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the pool, and passes on what it hands over because of it.
    fn change<T>(&self, change: impl FnOnce(&mut Ways) -> T) -> T {
        let mut ways = self.ways();
        let done = change(&mut ways);
        ways.pass_on();
        done
    }

    /// Those of the senders whose accounts are not known.
    pub(super) fn strangers(&self, senders: impl IntoIterator<Item = Address>) -> Vec<Address> {
        let ways = self.ways();
        senders.into_iter().filter(|sender| !ways.pool.knows(sender)).collect()
    }

    /// See [`Pool::on_account`].
    pub(super) fn on_account(&self, sender: Address, account: &Account) -> bool {
        self.change(|ways| ways.pool.on_account(sender, account))
    }

    /// See [`Pool::insert`].
    pub(super) fn submit(&self, signed: Signed, is_fresh: bool) -> Result<Submitted, Declined> {
        let hash = signed.hash;
        self.change(|ways| {
            ways.pool.insert(signed, is_fresh)?;
            let verdict = ways.pool.is_handed_over(&hash).then(|| {
                let (asking, verdict) = oneshot::channel();
                ways.asking.insert(hash, asking);
                verdict
            });
            Ok(Submitted { hash, verdict })
        })
    }

    /// What the cluster has against bytes that are no transaction to this gateway: it knows more
    /// kinds, if only to say why it does not take them.
    pub(super) async fn why_refused(&self, raw: &Bytes) -> Refused {
        match self.0.client.submit_one(transaction(raw)).await {
            Err(error) => refused(&error),
            Ok(_) => {
                let detail =
                    "the cluster takes a kind of transaction that this gateway is too old for";
                Refused { code: ErrorCode::Unsupported, detail: detail.into(), known: None }
            }
        }
    }

    /// Takes over what new blocks say.
    pub(super) fn on_blocks(&self, blocks: &[Block]) {
        for block in blocks {
            let seen = block.transactions.iter().filter_map(|transaction| {
                let decoded = crate::Transaction::decode_2718_exact(&transaction.raw).ok()?;
                let sender = Address::new(transaction.sender);
                Some((B256::new(transaction.receipt.id.0), sender, decoded.nonce()))
            });
            let seen: Vec<_> = seen.collect();
            self.change(|ways| {
                for (hash, sender, nonce) in seen {
                    ways.pool.on_block_transaction(hash, sender, nonce);
                }
            });
        }
    }

    /// Tells who asked that the transaction is taken.
    fn answer(&self, hash: B256) {
        let asking = self.ways().asking.remove(&hash);
        if let Some(asking) = asking {
            // Who asked may have gone.
            asking.send(Ok(hash)).ok();
        }
    }

    fn on_accepted(&self, id: TxId) {
        let hash = B256::new(id.0);
        self.answer(hash);
        if self.0.arrivals.receiver_count() > 0
            && let Some(transaction) = self.ways().pool.newly_accepted(&hash)
        {
            // Listeners may go at any moment.
            self.0.arrivals.send(Arc::new(transaction)).ok();
        }
    }

    fn on_refused(&self, hash: B256, error: &Error) {
        let asking = self.change(|ways| {
            ways.pool.on_refused(hash);
            ways.asking.remove(&hash)
        });
        match asking {
            Some(asking) => {
                // Who asked may have gone.
                asking.send(Err(refused(error))).ok();
            }
            None => tracing::debug!(%hash, %error, "a transaction of the pool was refused"),
        }
    }

    fn on_receipt(&self, receipt: &Receipt) {
        // It was accepted, whether that was heard or not.
        self.answer(B256::new(receipt.id.0));
        if let Outcome::Invalid(code) = receipt.outcome {
            self.change(|ways| ways.pool.on_invalid(B256::new(receipt.id.0), code));
        }
    }

    /// See [`Pool::next_nonce`].
    pub(super) fn next_nonce(&self, sender: &Address, nonce: u64) -> u64 {
        self.ways().pool.next_nonce(sender, nonce)
    }

    /// See [`Pool::get`].
    pub(super) fn get(&self, hash: &B256) -> Option<PoolTransaction> {
        self.ways().pool.get(hash)
    }

    /// See [`Pool::shown`].
    pub(super) fn pool(&self) -> Shown {
        self.ways().pool.shown()
    }

    /// Tells of transactions that the cluster has accepted.
    pub(super) fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>> {
        self.0.arrivals.subscribe()
    }
}

/// Hands transactions over in their order, as many together as there are.
async fn hand_over(
    client: Client,
    shared: std::sync::Weak<Shared>,
    mut received: mpsc::UnboundedReceiver<Arc<Signed>>,
) {
    let mut unit = Vec::new();
    while received.recv_many(&mut unit, SUBMISSION_MAX).await > 0 {
        let Some(submitter) = shared.upgrade().map(Submitter) else { return };
        let hashes: Vec<_> = unit.iter().map(|signed| signed.hash).collect();
        let transactions = unit.drain(..).map(|signed| transaction(&signed.raw)).collect();
        match client.submit_watched(transactions).await {
            Ok((submission, acceptances)) => {
                tokio::spawn(watch(submitter, hashes, submission, acceptances));
            }
            Err(error) => hashes.iter().for_each(|hash| submitter.on_refused(*hash, &error)),
        }
    }
}

/// As it is submitted: it may have been ordered before an earlier one of its sender.
fn transaction(raw: &Bytes) -> Transaction {
    Transaction { renews: true, ..Transaction::new(RuntimeId::EVM, raw.clone()) }
}

/// Follows a submission to its end.
async fn watch(
    submitter: Submitter,
    hashes: Vec<B256>,
    mut submission: Submission,
    mut acceptances: mpsc::Receiver<(usize, TxId)>,
) {
    loop {
        tokio::select! {
            biased;
            Some((_, id)) = acceptances.recv() => submitter.on_accepted(id),
            result = submission.next() => match result {
                Some((_, Ok(receipt))) => submitter.on_receipt(&receipt),
                Some((index, Err(error))) => submitter.on_refused(hashes[index], &error),
                None => return,
            },
        }
    }
}

fn refused(error: &Error) -> Refused {
    match error {
        Error::Rejected(rejection) => {
            Refused { code: rejection.code, detail: rejection.detail.clone(), known: None }
        }
        error => Refused { code: ErrorCode::Unavailable, detail: error.to_string(), known: None },
    }
}
