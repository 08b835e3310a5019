//! Executing a block, and holding it against its header.

use std::collections::{BTreeMap, VecDeque};

use alloy_consensus::Header;
use alloy_eips::{eip2935, eip4788};
use alloy_primitives::{Address, B256, U256};
use parsec_ethereum::{Block, BlockTransaction};
use parsec_protocol::{
    EpochNumber, EpochRecord, ErrorCode, Key, Outcome, Position, Receipt, TxId, Value,
};
use revm::primitives::hardfork::SpecId;

use super::body::{Body, BodyTransaction};
use super::error::{Reason, same_result};
use super::header::present;
use super::spec::ChainSpec;
use super::{Verified, ommers, system};
use crate::evm::block::BlockReceipts;
use crate::evm::forks::Fork;
use crate::evm::keys::{self, AccountRecord};
use crate::evm::overlay::{Changes, Overlay};
use crate::evm::params::{BlobGas, BlockOverride, ChainParams};
use crate::evm::payload;
use crate::evm::session::EvmSession;
use crate::evm::trie::StateTrie;
use crate::{Call, Session as _};

/// Wei in the unit of withdrawals.
const GWEI: u64 = 1_000_000_000;

/// The parameters that the transactions of a block are executed with.
pub(super) fn params(
    spec: &ChainSpec,
    fork: &Fork,
    header: &Header,
    hashes: &VecDeque<(u64, B256)>,
) -> Value {
    let blobs = fork.blobs.zip(header.excess_blob_gas).map(|(blobs, excess)| BlobGas {
        excess,
        update_fraction: u64::try_from(blobs.update_fraction).unwrap_or(u64::MAX),
    });
    let merged = fork.spec.is_enabled_in(SpecId::MERGE);
    let block = BlockOverride {
        number: header.number,
        timestamp: header.timestamp,
        difficulty: header.difficulty.to_be_bytes(),
        prevrandao: merged.then_some(header.mix_hash.0),
        blobs,
        hashes: hashes.iter().map(|(number, hash)| (*number, hash.0)).collect(),
    };
    let params = ChainParams {
        fork: fork.name().to_owned(),
        coinbase: header.beneficiary.into_array(),
        gas_limit: header.gas_limit,
        base_fee: header.base_fee_per_gas.unwrap_or(0),
        block: Some(block),
        ..ChainParams::new(spec.chain_id)
    };
    params.encode()
}

/// The execution of a block.
pub(super) struct Run<'a> {
    pub(super) session: &'a mut EvmSession,
    /// The state before the block.
    pub(super) state: &'a BTreeMap<Key, Value>,
    /// The trie of the state, where roots are computed. It has all changes of the block so far.
    pub(super) trie: Option<&'a mut StateTrie>,
    pub(super) spec: &'a ChainSpec,
    pub(super) fork: Fork,
    pub(super) params: Value,
    pub(super) header: &'a Header,
    /// What the block has changed so far.
    pub(super) changes: Changes,
}

impl Run<'_> {
    fn since(&self, fork: SpecId) -> bool {
        self.fork.spec.is_enabled_in(fork)
    }

    /// Executes the block whose header this is.
    pub(super) fn block(mut self, body: &Body) -> Result<Verified, Reason> {
        let opening = self.stage(Self::open)?;
        let mut transactions = Vec::with_capacity(body.transactions.len());
        let executed = self.stage(|run| {
            let mut gas_used = 0;
            for (index, transaction) in body.transactions.iter().enumerate() {
                let done = run.transaction(index, transaction, gas_used)?;
                gas_used += done.receipt.work;
                transactions.push(done);
            }
            Ok(())
        })?;
        self.check_receipts(&transactions)?;
        let closing = self.stage(|run| run.close(body, &transactions))?;
        if let Some(root) = self.root() {
            same_result("state root", self.header.state_root, root)?;
        }
        let withdrawals = body.withdrawals.as_ref();
        let block = Block {
            number: self.header.number,
            epoch: EpochNumber(self.header.number),
            hash: body.hash.0,
            header: body.raw_header.clone(),
            transactions,
            ommers: body.ommers.iter().map(|ommer| ommer.raw.clone()).collect(),
            withdrawals: withdrawals.map(|all| all.iter().map(|(_, raw)| raw.clone()).collect()),
        };
        Ok(Verified { block, params: self.params, opening, executed, closing })
    }

    /// Does a part of the block; returns what it changed.
    fn stage(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<(), Reason>,
    ) -> Result<Changes, Reason> {
        let before = self.changes.clone();
        part(self)?;
        let new = |key: &Key, value: &Option<Value>| before.get(key) != Some(value);
        let changed = self.changes.iter().filter(|(key, value)| new(key, value));
        Ok(changed.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// What happens before the transactions: contracts are told of the blocks before.
    fn open(&mut self) -> Result<(), Reason> {
        if self.since(SpecId::CANCUN) && self.header.number > 0 {
            let root = self.header.parent_beacon_block_root;
            let root = present("parent beacon block root", root)?;
            self.tell(eip4788::BEACON_ROOTS_ADDRESS, root)?;
        }
        if self.since(SpecId::PRAGUE) && self.header.number > 0 {
            self.tell(eip2935::HISTORY_STORAGE_ADDRESS, self.header.parent_hash)?;
        }
        Ok(())
    }

    /// Calls a contract that is told a word. It need not be there, nor succeed.
    fn tell(&mut self, contract: Address, word: B256) -> Result<(), Reason> {
        self.call_system(contract, word.as_slice()).map(drop)
    }

    /// Calls a contract as the system; none if there is no such contract.
    pub(super) fn call_system(
        &mut self,
        contract: Address,
        data: &[u8],
    ) -> Result<Option<Result<Value, String>>, Reason> {
        let (epoch, entropy) = (self.epoch(), self.header.mix_hash.0);
        let below = |key: &Key| self.state.get(key).cloned();
        let mut overlay = Overlay::new(&below, &self.changes, &self.params);
        let data = Value::copy_from_slice(data);
        let result = self.session.call_system((&epoch, &entropy), contract, data, &mut overlay)?;
        let own = overlay.into_changes();
        self.make(own)?;
        Ok(result)
    }

    fn epoch(&self) -> EpochRecord {
        EpochRecord {
            number: EpochNumber(self.header.number),
            timestamp_ms: self.header.timestamp.saturating_mul(1_000),
            block: self.header.number,
            parent: [0; 32],
            batches: Vec::new(),
        }
    }

    /// Makes changes those of the block.
    fn make(&mut self, changes: Changes) -> Result<(), Reason> {
        if let Some(trie) = &mut self.trie {
            for (key, value) in &changes {
                trie.apply(key, value.as_ref())?;
            }
        }
        self.changes.extend(changes);
        Ok(())
    }

    /// The root of the state with all changes so far, where roots are computed.
    fn root(&mut self) -> Option<B256> {
        self.trie.as_mut().map(|trie| trie.root())
    }

    fn transaction(
        &mut self,
        index: usize,
        transaction: &BodyTransaction,
        gas_used: u64,
    ) -> Result<BlockTransaction, Reason> {
        let refused = |code: ErrorCode, detail: String| Reason::Transaction { index, code, detail };
        let sender = self.admit(transaction, gas_used).map_err(|(code, why)| refused(code, why))?;
        let id = TxId(alloy_primitives::keccak256(&transaction.raw).0);
        let (epoch, entropy) = (self.epoch(), self.header.mix_hash.0);
        let call = Call {
            id: &id,
            sender: sender.as_slice(),
            payload: &transaction.raw,
            epoch: &epoch,
            entropy: &entropy,
            trial: false,
        };
        let below = |key: &Key| self.state.get(key).cloned();
        let mut overlay = Overlay::new(&below, &self.changes, &self.params);
        let done = self.session.execute(&call, &mut overlay)?;
        if let Outcome::Invalid(code) = done.outcome {
            return Err(refused(code, String::from_utf8_lossy(&done.output).into_owned()));
        }
        let own = overlay.into_changes();
        self.make(own)?;
        let receipt = Receipt {
            id,
            position: Position {
                epoch: epoch.number,
                index: u32::try_from(index).unwrap_or(u32::MAX),
            },
            attempt: 0,
            outcome: done.outcome,
            work: done.work,
            output: parsec_protocol::message::short_output(&done.output),
            events: done.events,
        };
        let state_root = match self.since(SpecId::BYZANTIUM) {
            true => None,
            false => self.root().map(|root| root.0),
        };
        let raw = transaction.raw.clone();
        Ok(BlockTransaction { raw, sender: sender.into_array(), receipt, state_root })
    }

    /// Who sent a transaction, if it may be in this block.
    fn admit(
        &self,
        transaction: &BodyTransaction,
        gas_used: u64,
    ) -> Result<Address, (ErrorCode, String)> {
        use alloy_consensus::Transaction as _;
        let signed = &transaction.signed;
        if let Some(id) = signed.chain_id().filter(|id| *id != self.spec.chain_id) {
            let detail = format!("it is signed for chain {id}, this is {}", self.spec.chain_id);
            return Err((ErrorCode::WrongChain, detail));
        }
        let left = self.header.gas_limit.saturating_sub(gas_used);
        if signed.gas_limit() > left {
            let detail = format!("it may use {} gas, of which {left} is left", signed.gas_limit());
            return Err((ErrorCode::TooLarge, detail));
        }
        payload::signer(signed, !self.since(SpecId::HOMESTEAD))
            .map_err(|rejection| (rejection.code, rejection.detail))
    }

    fn check_receipts(&self, transactions: &[BlockTransaction]) -> Result<(), Reason> {
        let receipts = BlockReceipts::of(transactions);
        same_result("gas used", self.header.gas_used, receipts.gas_used)?;
        same_result("logs bloom", self.header.logs_bloom, receipts.bloom)?;
        // Before Byzantium, receipts hold the root of the state after each transaction.
        match self.trie.is_some() || self.since(SpecId::BYZANTIUM) {
            true => same_result("receipts root", self.header.receipts_root, receipts.root()),
            false => Ok(()),
        }
    }

    /// What happens after the transactions.
    fn close(&mut self, body: &Body, transactions: &[BlockTransaction]) -> Result<(), Reason> {
        for (withdrawal, _) in body.withdrawals.iter().flatten() {
            self.pay(&withdrawal.address, U256::from(withdrawal.amount) * U256::from(GWEI))?;
        }
        for (address, amount) in ommers::rewards(body, &self.fork) {
            self.pay(&address, amount)?;
        }
        if self.since(SpecId::PRAGUE) {
            let found = system::requests_hash(self, transactions)?;
            let expected = present("requests hash", self.header.requests_hash)?;
            same_result("requests hash", expected, found)?;
        }
        Ok(())
    }

    fn pay(&mut self, address: &Address, amount: U256) -> Result<(), Reason> {
        if amount.is_zero() {
            return Ok(());
        }
        let key = keys::account(address);
        let below = |key: &Key| self.state.get(key).cloned();
        let overlay = Overlay::new(&below, &self.changes, &self.params);
        let record = overlay.value(&key).map(|value| AccountRecord::decode(&value)).transpose()?;
        let AccountRecord { balance, nonce } = record.unwrap_or_default();
        let record = AccountRecord { balance: balance.wrapping_add(amount), nonce };
        self.make(Changes::from([(key, Some(record.encode()))]))
    }
}
