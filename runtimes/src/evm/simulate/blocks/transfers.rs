//! What is logged in an execution, with the transfers of value between its logs.

use alloy_primitives::{Address, B256, Log, LogData, U256, address, b256};
use revm::Inspector;
use revm::context_interface::{ContextTr, JournalTr};
use revm::interpreter::{CallInputs, CallOutcome, CreateInputs, CreateOutcome};

/// Who seems to log transfers of value.
const EMITTER: Address = address!("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");

/// The topic of `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Remembers logs, but for those of frames that fail.
#[derive(Debug)]
pub(super) struct Transfers {
    /// Whether transfers of value are remembered, too.
    traced: bool,
    /// Those of each open frame, after those of the frames that have ended.
    frames: Vec<Vec<Log>>,
}

impl Transfers {
    pub(super) fn new(traced: bool) -> Self {
        Self { traced, frames: vec![Vec::new()] }
    }

    pub(super) fn into_logs(self) -> Vec<Log> {
        self.frames.into_iter().flatten().collect()
    }

    fn push(&mut self, log: Log) {
        if let Some(frame) = self.frames.last_mut() {
            frame.push(log);
        }
    }

    fn transfer(&mut self, from: Address, to: Address, value: U256) {
        if self.traced && !value.is_zero() {
            let topics = vec![TRANSFER, from.into_word(), to.into_word()];
            let data = LogData::new_unchecked(topics, B256::from(value).into());
            self.push(Log { address: EMITTER, data });
        }
    }

    fn end(&mut self, succeeded: bool) {
        if let Some(frame) = self.frames.pop().filter(|_| succeeded)
            && let Some(parent) = self.frames.last_mut()
        {
            parent.extend(frame);
        }
    }
}

impl<C: ContextTr> Inspector<C> for Transfers {
    fn log(&mut self, _: &mut C, log: Log) {
        self.push(log);
    }

    fn call(&mut self, _: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.frames.push(Vec::new());
        if let Some(value) = inputs.transfer_value() {
            self.transfer(inputs.transfer_from(), inputs.transfer_to(), value);
        }
        None
    }

    fn call_end(&mut self, _: &mut C, _: &CallInputs, outcome: &mut CallOutcome) {
        self.end(outcome.result.is_ok());
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.frames.push(Vec::new());
        if self.traced && !inputs.value().is_zero() {
            // What the state can't answer stops the creation itself, too.
            let caller = context.journal_mut().load_account(inputs.caller()).ok()?;
            let created = inputs.created_address(caller.data.info.nonce);
            self.transfer(inputs.caller(), created, inputs.value());
        }
        None
    }

    fn create_end(&mut self, _: &mut C, _: &CreateInputs, outcome: &mut CreateOutcome) {
        self.end(outcome.result.is_ok());
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.transfer(contract, target, value);
    }
}
