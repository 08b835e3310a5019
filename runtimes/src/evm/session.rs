//! Executing Ethereum transactions.

use alloy_eips::eip4788::SYSTEM_ADDRESS;
use alloy_primitives::{Address, Log, TxKind};
use bytes::Bytes;
use parsec_protocol::{EpochRecord, ErrorCode, Event, Key, Outcome, ShortBytes, Value};
use revm::context::TxEnv;
use revm::context_interface::Transaction;
use revm::context_interface::result::{
    ExecutionResult, HaltReason, InvalidTransaction, OutOfGasError, Output,
};
use revm::context_interface::transaction::AuthorizationTr;
use revm::primitives::hardfork::SpecId;

use super::commit;
use super::machine::{Environment, Failure, Parts, Run};
use super::params::{ChainParams, Prepared};
use super::view::{AssumedNonces, CodeCache, Stop, Trace, View};
use super::{keys, payload};
use crate::{Call, Done, Interrupt, Session, State};

/// The gas of a system call.
const SYSTEM_GAS: u64 = 30_000_000;

/// Executes Ethereum transactions, one after another.
pub(super) struct EvmSession {
    chain_id: u64,
    params_key: Key,
    /// The parameters last seen, with the value that says so.
    params: Option<(Option<Value>, Prepared)>,
    code: CodeCache,
    trace: Trace,
    parts: Parts,
}

impl EvmSession {
    pub(super) fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            params_key: keys::params(),
            params: None,
            code: CodeCache::default(),
            trace: Trace::default(),
            parts: Parts::new(),
        }
    }

    /// Makes the parameters ready, unless they are those of the last transaction.
    fn prepare(&mut self, state: &mut dyn State) -> Result<(), Interrupt> {
        let value = state.get(&self.params_key)?;
        if self.params.as_ref().is_some_and(|(known, _)| same(known, &value)) {
            return Ok(());
        }
        let damaged = |reason: String| Interrupt::Fatal(format!("chain parameters: {reason}"));
        let params = match &value {
            None => ChainParams::new(self.chain_id),
            Some(value) => ChainParams::decode(value).map_err(|e| damaged(e.to_string()))?,
        };
        self.params = Some((value, Prepared::new(params).map_err(|e| damaged(e.to_string()))?));
        Ok(())
    }

    /// Runs a transaction until it consults no account that was loaded hollow.
    fn run(
        &mut self,
        call: &Call<'_>,
        tx: TxEnv,
        state: &mut dyn State,
    ) -> Result<Done, Interrupt> {
        let Some((_, params)) = &self.params else {
            return Err(Interrupt::Fatal("chain parameters were not prepared".to_owned()));
        };
        let block = params.block(call.epoch, call.entropy);
        let rules = params.rules(&block);
        let mut cfg = rules.cfg.clone();
        // Legacy transactions are for a chain only since EIP-155.
        let is_protected = tx.tx_type == 0 && tx.chain_id.is_some();
        if is_protected && !cfg.spec.is_enabled_in(SpecId::SPURIOUS_DRAGON) {
            return Ok(invalid(&InvalidTransaction::InvalidChainId));
        }
        cfg.disable_balance_check = call.trial;
        cfg.disable_base_fee = call.trial;
        let assumed = if call.trial { assume(&tx, cfg.chain_id) } else { AssumedNonces::default() };
        let coinbase = block.beneficiary;
        self.trace.start(tx.caller);
        let mut environment = Environment { tx, block, cfg };
        loop {
            let view = View {
                state: &mut *state,
                trace: &mut self.trace,
                code: &mut self.code,
                params,
                gas: &rules.gas,
                assumed: &assumed,
                is_trial: call.trial,
                reward: None,
                unknown_block: None,
            };
            let run = self.parts.run(environment, view);
            let Run { result, environment: again, mut view, journal } = run;
            let end = match result {
                Err(Failure::Database(Stop::Hollow(address))) => Err(address),
                result => Ok(result.map_or_else(failure, |result| {
                    commit::write_back(&mut view, &journal, coinbase)?;
                    Ok(done(result, view.unknown_block))
                })),
            };
            self.parts.reuse(journal);
            let hollow = match end {
                Ok(done) => return done,
                Err(hollow) => hollow,
            };
            if self.trace.full.contains(&hollow) {
                return Err(Interrupt::Fatal(format!("{hollow} is hollow though it was loaded")));
            }
            // Where the footprint lacks the account, this is what says so.
            state.get(&keys::account(&hollow))?;
            self.trace.full.push(hollow);
            self.trace.clear();
            environment = again;
        }
    }
}

/// What a system contract answered: what it returned, or why it failed.
pub(super) type SystemAnswer = Result<Value, String>;

impl EvmSession {
    /// Calls a contract as the system does around the transactions of a block (EIP-4788, 2935, 7002
    /// and 7251), in the block that the parameters give. None if there is no such contract.
    pub(super) fn call_system(
        &mut self,
        (epoch, entropy): (&EpochRecord, &[u8; 32]),
        contract: Address,
        data: Value,
        state: &mut dyn State,
    ) -> Result<Option<SystemAnswer>, Interrupt> {
        self.prepare(state)?;
        let code = state.get(&keys::code_record(&contract))?;
        let code = keys::CodeRecord::decode(code.as_ref())
            .map_err(|error| Interrupt::Fatal(error.to_string()))?;
        let Some((_, params)) = self.params.as_ref().filter(|_| code.hash.is_some()) else {
            return Ok(None);
        };
        let block = params.block(epoch, entropy);
        let rules = params.rules(&block);
        let mut cfg = rules.cfg.clone();
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        let tx = TxEnv {
            caller: SYSTEM_ADDRESS,
            kind: TxKind::Call(contract),
            data: Bytes::from(data).into(),
            gas_limit: SYSTEM_GAS,
            ..TxEnv::default()
        };
        let coinbase = block.beneficiary;
        self.trace.start(tx.caller);
        let view = View {
            state,
            trace: &mut self.trace,
            code: &mut self.code,
            params,
            gas: &rules.gas,
            assumed: &AssumedNonces::default(),
            is_trial: false,
            reward: None,
            unknown_block: None,
        };
        let run = self.parts.run_system(Environment { tx, block, cfg }, view);
        let Run { result, mut view, journal, .. } = run;
        let answer = match result {
            Ok(ExecutionResult::Success { output, .. }) => Ok(output.into_data().0.into()),
            Ok(ExecutionResult::Revert { .. }) => Err("it reverted".to_owned()),
            Ok(ExecutionResult::Halt { reason, .. }) => Err(reason.to_string()),
            Err(error) => return Err(Interrupt::Fatal(format!("a system call: {error}"))),
        };
        commit::write_back(&mut view, &journal, coinbase)?;
        self.parts.reuse(journal);
        Ok(Some(answer))
    }
}

impl Session for EvmSession {
    fn execute(&mut self, call: &Call<'_>, state: &mut dyn State) -> Result<Done, Interrupt> {
        let sender = Address::try_from(call.sender).map_err(|_| {
            Interrupt::Fatal(format!("an Ethereum sender of {} bytes", call.sender.len()))
        })?;
        let transaction = match payload::decode(call.payload) {
            Ok(transaction) => transaction,
            Err(rejection) => return Ok(Done::invalid(rejection.code, rejection.detail)),
        };
        let tx = payload::environment(transaction, sender);
        // In a trial the machine does not check the funds, and takes it that the costs fit.
        if let Err(error) = tx.max_balance_spending() {
            return Ok(invalid(&error));
        }
        self.prepare(state)?;
        self.run(call, tx, state)
    }
}

/// The nonces that a trial of the transaction takes for granted: its own, and those of its
/// authorizations.
fn assume(tx: &TxEnv, chain_id: u64) -> AssumedNonces {
    let usable = tx.authorization_list.iter().filter(|signed| {
        let chain = signed.chain_id();
        (chain.is_zero() || chain == chain_id) && signed.nonce() < u64::MAX
    });
    let authorities = usable.filter_map(|signed| Some((signed.authority()?, signed.nonce())));
    AssumedNonces { sender: Some(tx.nonce), authorities: authorities.collect() }
}

/// Whether two values are the same, which they mostly are by being the same memory.
fn same(a: &Option<Value>, b: &Option<Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b,
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// What becomes of a transaction whose run did not come to an end.
fn failure(failure: Failure) -> Result<Done, Interrupt> {
    match failure {
        Failure::Transaction(error) => Ok(invalid(&error)),
        Failure::Database(Stop::Interrupt(interrupt)) => Err(interrupt),
        Failure::Database(stop @ Stop::Hollow(_)) => Err(Interrupt::Fatal(stop.to_string())),
        Failure::Header(error) => Err(Interrupt::Fatal(format!("block environment: {error}"))),
        Failure::Custom(error) => Err(Interrupt::Fatal(format!("machine: {error}"))),
        Failure::CustomAny(error) => Err(Interrupt::Fatal(format!("machine: {error}"))),
    }
}

fn invalid(error: &InvalidTransaction) -> Done {
    use InvalidTransaction as I;
    let code = match error {
        I::NonceTooLow { .. } => ErrorCode::NonceTooLow,
        I::NonceTooHigh { .. } => ErrorCode::NonceTooHigh,
        I::NonceOverflowInTransaction => ErrorCode::Overflow,
        I::LackOfFundForMaxFee { .. } | I::OverflowPaymentInTransaction => {
            ErrorCode::InsufficientFunds
        }
        I::GasPriceLessThanBasefee | I::BlobGasPriceGreaterThanMax { .. } => ErrorCode::Underpriced,
        I::CallGasCostMoreThanGasLimit { .. } | I::GasFloorMoreThanGasLimit { .. } => {
            ErrorCode::OutOfWork
        }
        I::CallerGasLimitMoreThanBlock
        | I::TxGasLimitGreaterThanCap { .. }
        | I::CreateInitCodeSizeLimit
        | I::TooManyBlobs { .. } => ErrorCode::TooLarge,
        I::RejectCallerWithCode => ErrorCode::NotPermitted,
        I::InvalidChainId | I::MissingChainId => ErrorCode::WrongChain,
        I::AccessListNotSupported
        | I::MaxFeePerBlobGasNotSupported
        | I::BlobVersionedHashesNotSupported
        | I::BlobVersionNotSupported
        | I::AuthorizationListNotSupported
        | I::Eip2930NotSupported
        | I::Eip1559NotSupported
        | I::Eip4844NotSupported
        | I::Eip7702NotSupported
        | I::Eip7873NotSupported => ErrorCode::Unsupported,
        _ => ErrorCode::Malformed,
    };
    Done::invalid(code, error.to_string())
}

/// What becomes of a transaction that ran to its end.
fn done(result: ExecutionResult, unknown_block: Option<u64>) -> Done {
    let work = result.tx_gas_used();
    let (outcome, output, events) = match result {
        ExecutionResult::Success { logs, output, .. } => {
            let output = match output {
                Output::Call(data) => data.0,
                Output::Create(_, address) => {
                    address.map_or_else(Bytes::new, |a| Bytes::copy_from_slice(a.as_slice()))
                }
            };
            (Outcome::Committed, output, logs.into_iter().map(event).collect())
        }
        ExecutionResult::Revert { output, .. } => {
            (Outcome::Reverted(ErrorCode::Refused), output.0, Vec::new())
        }
        ExecutionResult::Halt { reason, .. } => {
            let (code, text) = halt(&reason, unknown_block);
            (Outcome::Reverted(code), text.into(), Vec::new())
        }
    };
    Done { outcome, work, output, events }
}

fn halt(reason: &HaltReason, unknown_block: Option<u64>) -> (ErrorCode, String) {
    let code = match (reason, unknown_block) {
        (HaltReason::NotActivated, Some(number)) => {
            let text = format!("BLOCKHASH: the hash of block {number} is not known");
            return (ErrorCode::Unsupported, text);
        }
        (HaltReason::OutOfGas(OutOfGasError::MemoryLimit), _) => ErrorCode::OutOfMemory,
        (HaltReason::OutOfGas(_), _) => ErrorCode::OutOfWork,
        _ => ErrorCode::Halted,
    };
    (code, reason.to_string())
}

fn event(log: Log) -> Event {
    let (topics, data) = log.data.split();
    Event {
        source: ShortBytes::copy_from_slice(log.address.as_slice()),
        topics: topics.into_iter().map(|topic| topic.0).collect(),
        data: ShortBytes::copy_from_slice(&data),
    }
}
