//! A bound on what a tracer remembers.

use alloy_primitives::Log;
use revm::Inspector;
use revm::context_interface::ContextTr;
use revm::context_interface::context::ContextError;
use revm::interpreter::{
    CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
    InterpreterResult,
};

use super::too_long;

/// What a call or a log takes beside its data.
const ENTRY_BYTES: usize = 512;

/// Stops an execution when its calls and logs hold more than some bytes: a tracer beside it
/// remembers them all.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    used: usize,
    /// Whether each creation failed because it could not pay for its code.
    unpaid: Vec<bool>,
    /// The creations that have not ended.
    open: Vec<usize>,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: 0, unpaid: Vec::new(), open: Vec::new() }
    }

    /// Whether each creation, in the order in which they began, failed because it could not pay
    /// for its code.
    pub(super) fn unpaid(&self) -> &[bool] {
        &self.unpaid
    }

    fn spend(&mut self, bytes: usize, context: &mut impl ContextTr) {
        // As hexadecimal digits, each byte takes two.
        self.used = self.used.saturating_add(ENTRY_BYTES + 2 * bytes);
        if self.is_spent() && context.error().is_ok() {
            *context.error() = Err(ContextError::Custom(too_long(self.max)));
        }
    }

    fn is_spent(&self) -> bool {
        self.used > self.max
    }
}

impl<C: ContextTr> Inspector<C> for Budget {
    fn step(&mut self, interpreter: &mut Interpreter, _: &mut C) {
        if self.is_spent() {
            interpreter.halt_fatal();
        }
    }

    fn log(&mut self, context: &mut C, log: Log) {
        self.spend(log.data.data.len(), context);
    }

    fn call(&mut self, context: &mut C, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.spend(inputs.input.len(), context);
        None
    }

    fn call_end(&mut self, context: &mut C, _: &CallInputs, outcome: &mut CallOutcome) {
        self.spend(outcome.result.output.len(), context);
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.spend(inputs.init_code().len(), context);
        self.open.push(self.unpaid.len());
        self.unpaid.push(false);
        None
    }

    fn create_end(&mut self, context: &mut C, _: &CreateInputs, outcome: &mut CreateOutcome) {
        self.spend(outcome.result.output.len(), context);
        // Whoever runs out of gas earlier has returned no code.
        let InterpreterResult { result, output, .. } = &outcome.result;
        let unpaid = *result == InstructionResult::OutOfGas && !output.is_empty();
        if let Some(creation) = self.open.pop() {
            self.unpaid[creation] = unpaid;
        }
    }
}
