//! Making blocks.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use alloy_eips::eip2935;
use alloy_primitives::{Address, B256, U256, keccak256};
use parsec_ethereum::{Block, Environment};
use parsec_gateway::Refused;
use parsec_protocol::{EpochNumber, ErrorCode, Value};
use parsec_runtimes::evm::block::Sealing;
use parsec_runtimes::evm::fees::{Parent, next_base_fee, next_excess_blob_gas};
use parsec_runtimes::evm::{BlobGas, BlockOverride, ChainParams, Changes, DynamicFee, keys};
use revm::primitives::BLOCK_HASH_HISTORY;
use revm::primitives::hardfork::SpecId;

use super::execute::{Invalid, Pending, Run};
use super::{DevChain, Mark, NextBlock, Output, Stop};
use crate::config::Mining;
use crate::transaction::{Submission, refused};

/// Most blocks that are made by one call.
pub const BLOCKS_MAX: u64 = 1_000_000;

/// What becomes of a transaction that is tried in a block.
enum Tried {
    Included,
    /// It may fit a later block.
    Waits,
    Dropped(Refused),
}

impl DevChain {
    /// The base fee of the next block, wei.
    #[must_use]
    pub fn base_fee(&self) -> u64 {
        if !self.since(SpecId::LONDON) {
            return 0;
        }
        self.next.base_fee.unwrap_or_else(|| match self.last().fees {
            // Only whoever wants none sets it, so it stays.
            Parent { base_fee: Some(0), .. } => 0,
            parent => next_base_fee(&parent, &DynamicFee::MAINNET),
        })
    }

    /// Sets the base fee of the next block, wei.
    pub fn set_next_base_fee(&mut self, base_fee: u64) {
        self.revision += 1;
        self.next.base_fee = Some(base_fee);
    }

    /// Sets the randomness of the next block.
    pub fn set_next_prevrandao(&mut self, prevrandao: B256) {
        self.revision += 1;
        self.next.prevrandao = Some(prevrandao);
    }

    /// Sets who gets the fees from the next block on.
    pub fn set_coinbase(&mut self, coinbase: Address) {
        self.revision += 1;
        self.coinbase = coinbase;
    }

    /// The gas limit of the next block.
    #[must_use]
    pub fn gas_limit(&self) -> u64 {
        self.gas_limit
    }

    pub(super) fn excess_blob_gas(&self) -> Option<u64> {
        Some(next_excess_blob_gas(&self.last().fees, &self.fork.blobs?))
    }

    /// What the transactions of the next block see of it.
    #[must_use]
    pub fn environment(&self, now: u64) -> Environment {
        let (number, last) = (self.latest() + 1, self.last());
        let merged = self.since(SpecId::MERGE);
        let random = || keccak256([&last.hash.0[..], &number.to_le_bytes()].concat());
        Environment {
            number,
            timestamp: self.clock.next(now, last.timestamp),
            gas_limit: self.gas_limit,
            base_fee: self.base_fee(),
            coinbase: self.coinbase,
            difficulty: if merged { U256::ZERO } else { U256::ONE },
            prevrandao: self.next.prevrandao.unwrap_or_else(random),
            excess_blob_gas: self.excess_blob_gas(),
            parent_beacon_block_root: None,
            hashes: Vec::new(),
        }
    }

    /// The parameters that say what a block is like.
    fn block_params(&self, environment: &Environment) -> Value {
        let count = BLOCK_HASH_HISTORY.min(environment.number);
        let numbers = environment.number - count..environment.number;
        let hashes = numbers.filter_map(|number| Some((number, self.block_hash(number)?.0)));
        let blobs =
            self.fork.blobs.zip(environment.excess_blob_gas).map(|(blobs, excess)| BlobGas {
                excess,
                update_fraction: u64::try_from(blobs.update_fraction).unwrap_or(u64::MAX),
            });
        let block = BlockOverride {
            number: environment.number,
            timestamp: environment.timestamp,
            difficulty: environment.difficulty.to_be_bytes(),
            prevrandao: Some(environment.prevrandao.0).filter(|_| self.since(SpecId::MERGE)),
            blobs,
            hashes: hashes.collect(),
        };
        let base_fee = environment.base_fee;
        ChainParams { base_fee, ..self.params(Some(block)) }.encode()
    }

    /// What a block changes before its transactions: the hash of its parent is written into the
    /// contract that keeps them, where that stands (EIP-2935).
    fn before_transactions(&self, number: u64) -> Changes {
        let address = &eip2935::HISTORY_STORAGE_ADDRESS;
        let record = self.code_record(address);
        if !self.since(SpecId::PRAGUE) || record.hash != Some(*HISTORY_CODE_HASH) {
            return Changes::new();
        }
        let slot = U256::from((number - 1) % eip2935::HISTORY_SERVE_WINDOW as u64);
        let word = keys::encode_word(self.last().hash.into());
        Changes::from([(keys::storage(address, record.incarnation, slot), word)])
    }

    /// Executes what waits in a block of that environment. Returns it, with the transactions that
    /// will never fit any.
    fn run(&mut self, environment: Environment) -> Result<(Run, Vec<(B256, Refused)>), Stop> {
        let ready = match self.pool.is_empty() {
            true => Vec::new(),
            false => self.pool.ready(self.config.order, |sender| self.record(sender).nonce),
        };
        let changes = self.before_transactions(environment.number);
        let params = match ready.is_empty() {
            true => Value::new(),
            false => self.block_params(&environment),
        };
        let mut run = Run::new(environment, params, changes);
        let (mut held_up, mut dropped) = (BTreeSet::new(), Vec::new());
        for transaction in &ready {
            if held_up.contains(&transaction.sender) {
                continue;
            }
            match self.try_in(&mut run, transaction)? {
                Tried::Included => continue,
                Tried::Waits => {}
                Tried::Dropped(reason) => dropped.push((transaction.hash, reason)),
            }
            held_up.insert(transaction.sender);
        }
        Ok((run, dropped))
    }

    fn try_in(&mut self, run: &mut Run, transaction: &Submission) -> Result<Tried, Stop> {
        let environment = &run.environment;
        let blobs = self.fork.blobs.zip(environment.excess_blob_gas);
        let blob_fee = blobs.map_or(0, |(blobs, excess)| blobs.calc_blob_fee(excess));
        let blob_gas_max = blobs.map_or(0, |(blobs, _)| blobs.max_blob_gas_per_block());
        let fits = transaction.gas_limit <= environment.gas_limit.saturating_sub(run.gas_used)
            && transaction.max_fee >= u128::from(environment.base_fee)
            && transaction.max_blob_fee.is_none_or(|fee| fee >= blob_fee)
            && run.blob_gas_used + transaction.blob_gas <= blob_gas_max;
        if !fits {
            return Ok(Tried::Waits);
        }
        let sessions = self.sessions.get_mut().unwrap_or_else(PoisonError::into_inner);
        Ok(match run.execute(sessions, &self.states, transaction)? {
            Ok(()) => Tried::Included,
            Err(Invalid { code, detail }) => Tried::Dropped(refused(code, detail)),
        })
    }

    /// What the transactions that wait would do in a block now.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn pending(&mut self, now: u64) -> Result<Pending, Stop> {
        let environment = self.environment(now);
        let (run, _) = self.run(environment)?;
        Ok(Pending::new(run, self.last().hash))
    }

    /// The block that would be made now of what waits. Its state root is that of the block before.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn pending_block(&mut self, now: u64) -> Result<Block, Stop> {
        let environment = self.environment(now);
        let (run, _) = self.run(environment)?;
        let last = self.last();
        Ok(self.sealing(&run.environment, last.hash, last.state_root).seal(run.included))
    }

    /// Makes a block of what waits, even if that is nothing.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn mine(&mut self, now: u64) -> Result<Arc<Block>, Stop> {
        let environment = self.environment(now);
        let (run, dropped) = self.run(environment)?;
        self.drop_invalid(&dropped);
        Ok(self.finish(now, run))
    }

    /// Makes blocks, each `interval` seconds later than it would be otherwise.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn mine_many(&mut self, now: u64, count: u64, interval: Option<u64>) -> Result<(), Stop> {
        for _ in 0..count.min(BLOCKS_MAX) {
            self.clock.increase(interval.unwrap_or(0));
            self.mine(now)?;
        }
        Ok(())
    }

    /// Makes blocks of what can be executed, if blocks are made at once. Returns the transactions
    /// that turned out to fit none.
    pub(super) fn automine(&mut self, now: u64) -> Result<Vec<(B256, Refused)>, Stop> {
        let mut all_dropped = Vec::new();
        while self.mining == Mining::Auto && !self.pool.is_empty() {
            let environment = self.environment(now);
            let (run, dropped) = self.run(environment)?;
            let progress = !run.included.is_empty();
            self.drop_invalid(&dropped);
            all_dropped.extend(dropped);
            if !progress {
                break;
            }
            self.finish(now, run);
        }
        Ok(all_dropped)
    }

    fn drop_invalid(&mut self, dropped: &[(B256, Refused)]) {
        for (hash, reason) in dropped {
            tracing::debug!("transaction {hash} is dropped: {reason}");
            self.pool.remove(hash);
            self.revision += 1;
        }
    }

    /// Seals a block, and makes its state the latest.
    fn finish(&mut self, now: u64, run: Run) -> Arc<Block> {
        let Run { environment, changes, included, gas_used, blob_gas_used, .. } = run;
        self.clock.made(now, environment.timestamp);
        self.next = NextBlock::default();
        let version = self.states.commit(changes);
        let senders: BTreeSet<Address> = included.iter().map(|tx| tx.sender()).collect();
        let state_root = self.states.root();
        let sealing = self.sealing(&environment, self.last().hash, state_root);
        let block = Arc::new(sealing.seal(included));
        let fees = Parent {
            gas_used,
            gas_limit: environment.gas_limit,
            base_fee: self.since(SpecId::LONDON).then_some(environment.base_fee),
            blob_gas_used,
            excess_blob_gas: environment.excess_blob_gas.unwrap_or(0),
        };
        let (hash, timestamp) = (B256::new(block.hash), environment.timestamp);
        self.marks.push(Mark { hash, version, timestamp, fees, state_root });
        for sender in &senders {
            let nonce = self.record(sender).nonce;
            self.pool.remove_of(sender, Some(nonce));
        }
        self.forget();
        self.revision += 1;
        self.outputs.push(Output::Block(block.clone()));
        block
    }

    fn sealing<'a>(
        &self,
        environment: &'a Environment,
        parent: B256,
        state_root: B256,
    ) -> Sealing<'a> {
        Sealing {
            fork: self.fork.spec,
            environment,
            parent,
            state_root,
            epoch: EpochNumber(environment.number),
        }
    }

    /// Makes the block with the number 0.
    pub(super) fn seal_genesis(&mut self, timestamp: u64) {
        if self.take_genesis() {
            return;
        }
        let merged = self.since(SpecId::MERGE);
        let environment = Environment {
            number: 0,
            timestamp,
            gas_limit: self.gas_limit,
            base_fee: self.config.base_fee,
            coinbase: self.coinbase,
            difficulty: if merged { U256::ZERO } else { U256::ONE },
            excess_blob_gas: self.fork.blobs.map(|_| 0),
            ..Environment::default()
        };
        let state_root = self.states.root();
        let sealing = self.sealing(&environment, B256::ZERO, state_root);
        let block = Arc::new(sealing.seal(Vec::new()));
        let fees = Parent {
            gas_limit: self.gas_limit,
            base_fee: self.since(SpecId::LONDON).then_some(self.config.base_fee),
            ..Parent::default()
        };
        let hash = B256::new(block.hash);
        self.marks.push(Mark { hash, version: 0, timestamp, fees, state_root });
        self.outputs.push(Output::Block(block));
    }

    /// Forgets states that are outside the window and that no snapshot needs.
    pub(super) fn forget(&mut self) {
        let first = self.latest().saturating_sub(self.config.state_window);
        let first = self.marks[usize::try_from(first).unwrap_or(0)].version;
        let first = self.oldest_snapshot().map_or(first, |version| first.min(version));
        if first > self.states.oldest() {
            self.states.forget_before(first);
        }
    }

    /// Refuses a transaction that pays less than the next block's base fee.
    pub(super) fn check_fee(&self, transaction: &Submission) -> Result<(), Refused> {
        if transaction.max_fee < u128::from(self.base_fee()) {
            let detail = "max fee per gas less than block base fee";
            return Err(refused(ErrorCode::Underpriced, detail));
        }
        Ok(())
    }
}

static HISTORY_CODE_HASH: std::sync::LazyLock<B256> =
    std::sync::LazyLock::new(|| keccak256(&eip2935::HISTORY_STORAGE_CODE));
