//! A backend that executes nothing: blocks hold what a test says became of transactions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_consensus::{SignableTransaction as _, Transaction as _, TxEip1559, TxLegacy};
use alloy_eips::eip2718::{Decodable2718 as _, Encodable2718 as _};
use alloy_primitives::{Address, B256, Bytes as Data, Signature, TxKind, U256, keccak256};
use bytes::Bytes;
use parsec_ethereum::{
    Account, Answer, Block, BlockTransaction, Environment, Pool, PoolTransaction, Query, QueryError,
};
use parsec_gateway::{Answering, At, Backend, Chain, Refused, Transaction};
use parsec_protocol::{
    EpochNumber, ErrorCode, Event, Outcome, Position, Receipt, ShortBytes, TxId,
};
use parsec_runtimes::evm::block::Sealing;
use revm::primitives::hardfork::SpecId;
use tokio::sync::broadcast;

pub(crate) const CHAIN_ID: u64 = 31_337;
/// Who sent everything.
pub(crate) const SENDER: Address = Address::repeat_byte(0xaa);
/// The state of blocks before this one is gone.
pub(crate) const OLDEST_STATE: u64 = 0;

pub(crate) struct Fake {
    pub(crate) chain: Arc<Chain>,
    _directory: tempfile::TempDir,
    pool: Mutex<Vec<PoolTransaction>>,
    arrivals: broadcast::Sender<Arc<PoolTransaction>>,
    pub(crate) asked: Mutex<Vec<(At, Query)>>,
    pub(crate) answers: Mutex<Vec<Result<Answer, QueryError>>>,
    /// How many transactions came at a time.
    pub(crate) submitted: Mutex<Vec<usize>>,
    pub(crate) oldest: Mutex<u64>,
    pub(crate) block_wait: Mutex<Duration>,
}

fn environment(number: u64) -> Environment {
    Environment {
        number,
        timestamp: 1_000 + number,
        gas_limit: 30_000_000,
        base_fee: 7,
        coinbase: Address::repeat_byte(0xcc),
        prevrandao: B256::repeat_byte(0xdd),
        excess_blob_gas: Some(0),
        ..Environment::default()
    }
}

fn seal(parent: Option<&Block>, salt: u8, transactions: Vec<BlockTransaction>) -> Block {
    let number = parent.map_or(0, |parent| parent.number + 1);
    let sealing = Sealing {
        fork: SpecId::OSAKA,
        environment: &environment(number),
        parent: parent.map_or(B256::ZERO, |parent| B256::new(parent.hash)),
        state_root: B256::repeat_byte(salt),
        epoch: EpochNumber(number),
    };
    sealing.seal(transactions)
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let chain = Arc::new(Chain::open(&directory, &seal(None, 0, Vec::new())).unwrap());
        Arc::new(Self {
            chain,
            _directory: directory,
            pool: Mutex::default(),
            arrivals: broadcast::channel(64).0,
            asked: Mutex::default(),
            answers: Mutex::default(),
            submitted: Mutex::default(),
            oldest: Mutex::new(OLDEST_STATE),
            block_wait: Mutex::default(),
        })
    }

    /// Puts transactions into a new block. Those with an odd nonce revert.
    pub(crate) fn mine(&self, salt: u8, transactions: &[(Transaction, Vec<Event>)]) -> Block {
        let transactions = transactions.iter().map(|(tx, events)| {
            let raw: Bytes = tx.encoded_2718().into();
            let hash = keccak256(&raw);
            self.pool.lock().unwrap().retain(|pooled| pooled.hash != hash);
            let reverted = tx.nonce() % 2 == 1;
            let outcome = match reverted {
                true => Outcome::Reverted(ErrorCode::Refused),
                false => Outcome::Committed,
            };
            let receipt = Receipt {
                id: TxId(hash.0),
                position: Position { epoch: EpochNumber(1), index: 0 },
                attempt: 0,
                outcome,
                work: 21_000 + 100 * tx.nonce(),
                output: ShortBytes::new(),
                events: if reverted { Vec::new() } else { events.clone() },
            };
            BlockTransaction { raw, sender: SENDER.0.0, receipt, state_root: None }
        });
        let view = self.chain.view();
        let parent = view.block(view.head().number).unwrap();
        let block = seal(parent.as_ref(), salt, transactions.collect());
        self.chain.append(&block).unwrap();
        block
    }

    /// What the next question about an execution is answered.
    pub(crate) fn answer(&self, answer: Result<Answer, QueryError>) {
        self.answers.lock().unwrap().insert(0, answer);
    }
}

/// A transaction with that nonce.
pub(crate) fn transfer(nonce: u64) -> Transaction {
    let content = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 100,
        max_priority_fee_per_gas: 3,
        to: TxKind::Call(Address::repeat_byte(0xbb)),
        value: U256::from(nonce),
        input: Data::from_static(&[1, 2, 3]),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from(5), U256::from(6), true);
    content.into_signed(signature).into()
}

/// A legacy transaction that creates a contract.
pub(crate) fn creation(nonce: u64) -> Transaction {
    let content = TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 50,
        gas_limit: 200_000,
        to: TxKind::Create,
        input: Data::from_static(&[0x60]),
        ..TxLegacy::default()
    };
    let signature = Signature::new(U256::from(5), U256::from(6), false);
    content.into_signed(signature).into()
}

pub(crate) fn event(source: u8, topics: &[u8]) -> Event {
    Event {
        source: vec![source; 20].into(),
        topics: topics.iter().map(|topic| [*topic; 32]).collect(),
        data: [9; 1][..].into(),
    }
}

pub(crate) fn raw(tx: &Transaction) -> String {
    alloy_primitives::hex::encode_prefixed(tx.encoded_2718())
}

impl Backend for Fake {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn pending(&self) -> Environment {
        environment(self.chain.head().number + 1)
    }

    fn oldest_state(&self) -> u64 {
        *self.oldest.lock().unwrap()
    }

    fn query(&self, at: At, query: Query) -> Answering<'_, Result<Answer, QueryError>> {
        let answer = match &query {
            Query::Account(address) if *address == SENDER => {
                let balance = U256::from(1_000);
                Ok(Answer::Account(Account { balance, nonce: 7, code_hash: None }))
            }
            Query::Account(_) => Ok(Answer::Account(Account::default())),
            Query::Code(address) if *address == SENDER => {
                Ok(Answer::Code(Data::from_static(&[0xef])))
            }
            Query::Code(_) => Ok(Answer::Code(Data::new())),
            Query::Storage(_, slots) => {
                Ok(Answer::Storage(slots.iter().map(|slot| B256::from(*slot)).collect()))
            }
            Query::Proof(..) => Err(QueryError::Unsupported("there is no trie".to_owned())),
            Query::Simulate(_) => self.answers.lock().unwrap().pop().expect("an answer"),
        };
        self.asked.lock().unwrap().push((at, query));
        Box::pin(async move { answer })
    }

    fn submit(&self, raw: Vec<Bytes>) -> Answering<'_, Vec<Result<B256, Refused>>> {
        self.submitted.lock().unwrap().push(raw.len());
        let take = |raw: Bytes| {
            let hash = keccak256(&raw);
            let refuse = |code, detail: &str, known| Refused { code, detail: detail.into(), known };
            let tx = Transaction::decode_2718_exact(&raw)
                .map_err(|error| refuse(ErrorCode::Malformed, &error.to_string(), None))?;
            let mut pool = self.pool.lock().unwrap();
            if pool.iter().any(|pooled| pooled.hash == hash) {
                return Err(refuse(ErrorCode::AlreadyExists, "already known", Some(hash)));
            }
            let pooled = PoolTransaction { hash, sender: SENDER, nonce: tx.nonce(), raw };
            pool.push(pooled.clone());
            drop(self.arrivals.send(Arc::new(pooled)));
            Ok(hash)
        };
        let taken = raw.into_iter().map(take).collect();
        Box::pin(async move { taken })
    }

    fn next_nonce(&self, _: Address) -> Answering<'_, Result<u64, QueryError>> {
        Box::pin(async { Ok(9) })
    }

    fn pool(&self) -> Answering<'_, Result<Pool, QueryError>> {
        let mut pool = Pool::default();
        for pooled in self.pool.lock().unwrap().iter() {
            // Nonces from 100 on wait for others.
            let part = if pooled.nonce < 100 { &mut pool.pending } else { &mut pool.queued };
            let of_sender: &mut BTreeMap<_, _> = part.entry(pooled.sender).or_default();
            of_sender.insert(pooled.nonce, pooled.clone());
        }
        Box::pin(async { Ok(pool) })
    }

    fn pooled(&self, hash: B256) -> Answering<'_, Result<Option<PoolTransaction>, QueryError>> {
        let pool = self.pool.lock().unwrap();
        let found = pool.iter().find(|pooled| pooled.hash == hash).cloned();
        Box::pin(async { Ok(found) })
    }

    fn block_wait(&self) -> Duration {
        *self.block_wait.lock().unwrap()
    }

    fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>> {
        self.arrivals.subscribe()
    }
}
