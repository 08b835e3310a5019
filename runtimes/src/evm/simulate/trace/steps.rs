//! The trace of an execution instruction by instruction: what geth calls the struct logger.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_rpc_types_trace::geth::{DefaultFrame, GethDefaultTracingOptions, StructLog};
use revm::Inspector;
use revm::bytecode::opcode::{self, OpCode};
use revm::context::result::ExecutionResult;
use revm::context_interface::context::ContextError;
use revm::context_interface::{Cfg, ContextTr, JournalTr};
use revm::interpreter::instructions::gas_table_spec;
use revm::interpreter::interpreter_types::{InputsTr, Jumps, LoopControl, MemoryTr, ReturnData};
use revm::interpreter::{InstructionResult, Interpreter};
use revm::primitives::hardfork::SpecId;

use super::too_long;

/// What an entry takes as JSON beside its lists.
const ENTRY_BYTES: usize = 160;
/// What a word of memory takes, and a slot with its word.
const MEMORY_WORD_BYTES: usize = 96;
const SLOT_BYTES: usize = 144;

/// Remembers each instruction, with what it found.
#[derive(Debug)]
pub(super) struct Steps {
    options: GethDefaultTracingOptions,
    logs: Vec<StructLog>,
    /// The words that each contract has read and written.
    storage: BTreeMap<Address, BTreeMap<B256, B256>>,
    /// The refunds of each open frame.
    refunds: Vec<i64>,
    /// The instruction that is executed now, if the last entry is about it.
    open: Option<Open>,
    bytes: usize,
    bytes_max: usize,
}

/// An instruction that is executed.
#[derive(Debug)]
struct Open {
    op: u8,
    /// How many words it finds on the stack.
    stack: usize,
    /// The slot that it loads, if that is to be remembered.
    loads: Option<U256>,
}

impl Steps {
    pub(super) fn new(options: GethDefaultTracingOptions, bytes_max: usize) -> Self {
        Self {
            options,
            logs: Vec::new(),
            storage: BTreeMap::new(),
            refunds: Vec::new(),
            open: None,
            bytes: 0,
            bytes_max,
        }
    }

    /// The trace of an execution that came to that end.
    pub(super) fn into_frame(self, result: &ExecutionResult) -> DefaultFrame {
        DefaultFrame {
            failed: !result.is_success(),
            gas: result.tx_gas_used(),
            return_value: result.output().cloned().unwrap_or_default(),
            struct_logs: self.logs,
            ..DefaultFrame::default()
        }
    }

    fn is_full(&self) -> bool {
        let limit = self.options.limit.filter(|limit| *limit > 0);
        limit
            .is_some_and(|limit| u64::try_from(self.logs.len()).is_ok_and(|length| length >= limit))
    }

    /// What the instruction that comes next finds.
    fn entry(&mut self, interpreter: &Interpreter, depth: usize) -> StructLog {
        let options = self.options;
        let stack = interpreter.stack.data();
        let op = interpreter.bytecode.opcode();
        self.bytes += ENTRY_BYTES;
        StructLog {
            pc: u64::try_from(interpreter.bytecode.pc()).unwrap_or(u64::MAX),
            op: name(op).into(),
            gas: interpreter.gas.remaining(),
            depth: u64::try_from(depth).unwrap_or(u64::MAX),
            stack: options.is_stack_enabled().then(|| self.stack(stack)),
            memory: options.is_memory_enabled().then(|| self.memory(interpreter)),
            return_data: self.return_data(interpreter),
            storage: self.written(interpreter, op),
            refund_counter: self.refund(interpreter.gas.refunded(), depth),
            ..StructLog::default()
        }
    }

    fn stack(&mut self, stack: &[U256]) -> Vec<U256> {
        self.bytes += stack.iter().map(|word| 32.max(6 + word.bit_len() / 4)).sum::<usize>();
        stack.to_vec()
    }

    fn memory(&mut self, interpreter: &Interpreter) -> Vec<String> {
        let size = interpreter.memory.size();
        self.bytes += size.div_ceil(32).saturating_mul(MEMORY_WORD_BYTES);
        if self.bytes > self.bytes_max {
            return Vec::new();
        }
        let memory = interpreter.memory.slice(0..size);
        memory.chunks(32).map(hex::encode_prefixed).collect()
    }

    fn return_data(&mut self, interpreter: &Interpreter) -> Option<Bytes> {
        let data = interpreter.return_data.buffer();
        let shown = self.options.is_return_data_enabled() && !data.is_empty();
        shown.then(|| {
            self.bytes += 2 * data.len();
            data.clone()
        })
    }

    /// The storage of the contract with what an SSTORE that comes next will write.
    fn written(&mut self, interpreter: &Interpreter, op: u8) -> Option<BTreeMap<B256, B256>> {
        if op != opcode::SSTORE || !self.options.is_storage_enabled() {
            return None;
        }
        let [.., word, slot] = interpreter.stack.data()[..] else {
            return None;
        };
        self.remember(interpreter.input.target_address(), slot, word)
    }

    fn remember(
        &mut self,
        address: Address,
        slot: U256,
        word: U256,
    ) -> Option<BTreeMap<B256, B256>> {
        let storage = self.storage.entry(address).or_default();
        storage.insert(slot.into(), word.into());
        self.bytes += storage.len() * SLOT_BYTES;
        (self.bytes <= self.bytes_max).then(|| storage.clone())
    }

    /// The refunds of all open frames, the last of which has that depth.
    fn refund(&mut self, refunded: i64, depth: usize) -> Option<u64> {
        self.refunds.resize(depth, 0);
        if let Some(last) = self.refunds.last_mut() {
            *last = refunded;
        }
        let sum: i64 = self.refunds.iter().sum();
        u64::try_from(sum).ok().filter(|sum| *sum > 0)
    }

    /// Completes the entry of an instruction that was executed.
    fn complete(&mut self, open: &Open, interpreter: &mut Interpreter, spec: SpecId) {
        let failure = interpreter.bytecode.action().as_ref().and_then(|a| a.instruction_result());
        let storage = match (open.loads, failure, &interpreter.stack.data()[..]) {
            (Some(slot), None, [.., word]) => {
                self.remember(interpreter.input.target_address(), slot, *word)
            }
            _ => None,
        };
        let Some(log) = self.logs.last_mut() else {
            return;
        };
        log.storage = log.storage.take().or(storage);
        log.gas_cost = log.gas.saturating_sub(interpreter.gas.remaining());
        log.error = failure.and_then(|failure| error(failure, open));
        if log.error.is_some() {
            let least = gas_table_spec(spec)[usize::from(open.op)];
            log.gas_cost = log.gas_cost.max(u64::from(least));
        }
    }
}

/// What geth says of an instruction that can't be executed. It says nothing of one that fails
/// when it is executed.
fn error(failure: InstructionResult, open: &Open) -> Option<String> {
    use InstructionResult as R;
    match failure {
        R::OutOfGas | R::MemoryOOG | R::MemoryLimitOOG | R::PrecompileOOG => {
            Some("out of gas".to_owned())
        }
        R::InvalidOperandOOG => Some("gas uint64 overflow".to_owned()),
        R::StackUnderflow => {
            let wanted = OpCode::new(open.op).map_or(0, |op| op.inputs());
            Some(format!("stack underflow ({} <=> {wanted})", open.stack))
        }
        R::StackOverflow => Some("stack limit reached 1024 (1023)".to_owned()),
        _ => None,
    }
}

fn name(op: u8) -> String {
    OpCode::new(op)
        .map_or_else(|| format!("opcode {op:#x} not defined"), |op| op.as_str().to_owned())
}

impl<C: ContextTr<Cfg: Cfg<Spec = SpecId>>> Inspector<C> for Steps {
    fn step(&mut self, interpreter: &mut Interpreter, context: &mut C) {
        self.open = None;
        if self.is_full() {
            return;
        }
        let entry = self.entry(interpreter, context.journal().depth());
        if self.bytes > self.bytes_max {
            *context.error() = Err(ContextError::Custom(too_long(self.bytes_max)));
            interpreter.halt_fatal();
            return;
        }
        self.logs.push(entry);
        let op = interpreter.bytecode.opcode();
        let stack = interpreter.stack.data();
        let loads = stack.last().copied();
        let loads = loads.filter(|_| op == opcode::SLOAD && self.options.is_storage_enabled());
        self.open = Some(Open { op, stack: stack.len(), loads });
    }

    fn step_end(&mut self, interpreter: &mut Interpreter, context: &mut C) {
        if let Some(open) = self.open.take() {
            self.complete(&open, interpreter, context.cfg().spec());
        }
    }
}
