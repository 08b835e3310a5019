//! The Ethereum machine: revm, with what makes hollow accounts and additions to the coinbase safe.
//!
//! A hollow account has code that is known and a balance and nonce that are not. Whatever consults
//! these stops the run with [`Stop::Hollow`], so that it starts again with the account loaded:
//! the instructions BALANCE, SELFBALANCE and SELFDESTRUCT, and frames that transfer value or
//! create a contract. All else that looks at an account sees that it has code, and no more.

use std::cell::Cell;
use std::marker::PhantomData;

use alloy_primitives::{Address, U256};
use revm::bytecode::opcode;
use revm::context::journal::{Journal, JournalEntry, JournalInner};
use revm::context::{BlockEnv, CfgEnv, Context, ContextTr, Evm, FrameStack, LocalContext, TxEnv};
use revm::context_interface::context::ContextError;
use revm::context_interface::journaled_state::account::JournaledAccountTr;
use revm::context_interface::result::{EVMError, ExecutionResult, HaltReason};
use revm::context_interface::{Block, Host, JournalTr, Transaction};
use revm::handler::instructions::InstructionProvider;
use revm::handler::{EthFrame, EthPrecompiles, EvmTr, FrameResult, Handler, ItemOrResult};
use revm::interpreter::instructions::utility::IntoAddress;
use revm::interpreter::instructions::{GasTable, InstructionTable, host, instruction_table};
use revm::interpreter::interpreter::EthInterpreter;
use revm::interpreter::interpreter_action::FrameInit;
use revm::interpreter::interpreter_types::{InputsTr, StackTr};
use revm::interpreter::{
    CallValue, FrameInput, Instruction, InstructionContext, InstructionExecResult,
    InstructionResult,
};
use revm::primitives::BLOCK_HASH_HISTORY;
use revm::primitives::hardfork::SpecId;

use super::view::{Stop, View};

type Ctx<'a> = Context<BlockEnv, TxEnv, CfgEnv, View<'a>, Journal<View<'a>>, (), LocalContext>;
type Machine<'a> = Evm<Ctx<'a>, (), Instructions<'a>, EthPrecompiles, EthFrame<EthInterpreter>>;
type Frame<'c, 'a> = InstructionContext<'c, Ctx<'a>, EthInterpreter>;

/// Why a run did not come to an end.
pub(super) type Failure = EVMError<Stop>;

/// Longest memory buffer that a thread keeps for the next transaction, bytes.
const KEPT_BUFFER_BYTES: usize = 1_024 * 1_024;

/// What is costly to allocate and can't leave its thread. The frames are at most as many as calls
/// may nest, with 32 KiB each.
#[derive(Default)]
struct Scratch {
    frames: FrameStack<EthFrame<EthInterpreter>>,
    local: LocalContext,
}

thread_local! {
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

/// What a session keeps of its machine from one transaction to the next.
#[derive(Debug)]
pub(super) struct Parts {
    journal: Option<JournalInner<JournalEntry>>,
    precompiles: EthPrecompiles,
}

/// What a transaction is executed with, beside the state.
pub(super) struct Environment {
    pub(super) tx: TxEnv,
    pub(super) block: BlockEnv,
    pub(super) cfg: CfgEnv,
}

/// A run that has come to an end: its result, and what it did to the state.
pub(super) struct Run<'a> {
    pub(super) result: Result<ExecutionResult, Failure>,
    /// What it was given, in case it must be run again.
    pub(super) environment: Environment,
    pub(super) view: View<'a>,
    pub(super) journal: JournalInner<JournalEntry>,
}

impl Parts {
    pub(super) fn new() -> Self {
        let precompiles = EthPrecompiles::new(SpecId::OSAKA);
        Self { journal: Some(JournalInner::new()), precompiles }
    }

    /// Runs a transaction. Its journal is to be given back with [`Parts::reuse`].
    pub(super) fn run<'a>(&mut self, environment: Environment, view: View<'a>) -> Run<'a> {
        self.run_by(environment, view, |rules, machine| rules.run(machine))
    }

    /// Runs a call of the system: nobody pays for it, and it is valid whatever it is. Its journal is
    /// to be given back with [`Parts::reuse`].
    pub(super) fn run_system<'a>(&mut self, environment: Environment, view: View<'a>) -> Run<'a> {
        self.run_by(environment, view, |rules, machine| rules.run_system_call(machine))
    }

    fn run_by<'a>(
        &mut self,
        environment: Environment,
        view: View<'a>,
        run: impl FnOnce(&mut Rules<'a>, &mut Machine<'a>) -> Result<ExecutionResult, Failure>,
    ) -> Run<'a> {
        let Environment { tx, block, cfg } = environment;
        let Scratch { frames, mut local } = SCRATCH.take().unwrap_or_default();
        if local.shared_memory_buffer.borrow().capacity() > KEPT_BUFFER_BYTES {
            local = LocalContext::default();
        }
        let gas = view.gas;
        let mut inner = self.journal.take().unwrap_or_default();
        inner.set_spec_id(cfg.spec);
        let ctx = Ctx {
            block,
            tx,
            cfg,
            journaled_state: Journal::new_with_inner(view, inner),
            chain: (),
            local,
            error: Ok(()),
        };
        let mut machine = Evm {
            ctx,
            inspector: (),
            instruction: Instructions { table: instructions(), gas },
            precompiles: self.precompiles.clone(),
            frame_stack: frames,
        };
        let result = run(&mut Rules(PhantomData), &mut machine);
        self.precompiles = machine.precompiles;
        let Context { tx, block, cfg, journaled_state, local, .. } = machine.ctx;
        SCRATCH.set(Some(Scratch { frames: machine.frame_stack, local }));
        let Journal { database, inner } = journaled_state;
        let environment = Environment { tx, block, cfg };
        Run { result, environment, view: database, journal: inner }
    }

    /// Keeps the allocations of a journal for the next run.
    pub(super) fn reuse(&mut self, mut journal: JournalInner<JournalEntry>) {
        journal.state.clear();
        journal.transaction_id = Default::default();
        self.journal = Some(journal);
    }
}

/// The instructions of one run. The table is a constant of the program.
struct Instructions<'a> {
    table: &'a InstructionTable<EthInterpreter, Ctx<'a>>,
    gas: &'a GasTable,
}

impl<'a> InstructionProvider for Instructions<'a> {
    type Context = Ctx<'a>;
    type InterpreterTypes = EthInterpreter;

    fn instruction_table(&self) -> &InstructionTable<EthInterpreter, Ctx<'a>> {
        self.table
    }

    fn gas_table(&self) -> &GasTable {
        self.gas
    }
}

struct Table<'a>(PhantomData<&'a ()>);

impl<'a> Table<'a> {
    const INSTRUCTIONS: InstructionTable<EthInterpreter, Ctx<'a>> = {
        let mut table = instruction_table::<EthInterpreter, Ctx<'a>>();
        table[opcode::BALANCE as usize] = Instruction::new(balance);
        table[opcode::SELFBALANCE as usize] = Instruction::new(self_balance);
        table[opcode::SELFDESTRUCT as usize] = Instruction::new(self_destruct);
        table[opcode::BLOCKHASH as usize] = Instruction::new(block_hash);
        table
    };
}

fn instructions<'a>() -> &'a InstructionTable<EthInterpreter, Ctx<'a>> {
    &Table::<'a>::INSTRUCTIONS
}

/// Stops the run if the account's balance or nonce was not loaded.
fn consult(ctx: &mut Ctx<'_>, address: &Address) -> InstructionExecResult {
    ctx.journaled_state.database.consult(address).map_err(|stop| {
        ctx.error = Err(ContextError::Db(stop));
        InstructionResult::FatalExternalError
    })
}

fn top(frame: &mut Frame<'_, '_>) -> Option<U256> {
    StackTr::top(&mut frame.interpreter.stack).copied()
}

fn balance(mut frame: Frame<'_, '_>) -> InstructionExecResult {
    let address = top(&mut frame).map(IntoAddress::into_address);
    let Frame { interpreter, host } = frame;
    host::balance(InstructionContext { interpreter, host: &mut *host })?;
    // ORDER: after the instruction, which is what loads the account.
    address.map_or(Ok(()), |address| consult(host, &address))
}

fn self_balance(frame: Frame<'_, '_>) -> InstructionExecResult {
    let address = frame.interpreter.input.target_address();
    consult(frame.host, &address)?;
    host::selfbalance(frame)
}

fn self_destruct(mut frame: Frame<'_, '_>) -> InstructionExecResult {
    let target = top(&mut frame).map(IntoAddress::into_address);
    let address = frame.interpreter.input.target_address();
    consult(frame.host, &address)?;
    let Frame { interpreter, host } = frame;
    let result = host::selfdestruct(InstructionContext { interpreter, host: &mut *host });
    // ORDER: after the instruction, which is what loads the target.
    if let Some(target) = target {
        consult(host, &target)?;
    }
    result
}

/// BLOCKHASH, which fails like an instruction that does not exist where the hash is not known.
fn block_hash(mut frame: Frame<'_, '_>) -> InstructionExecResult {
    let number = top(&mut frame).and_then(|number| u64::try_from(number).ok());
    let current = u64::try_from(Host::block_number(frame.host)).unwrap_or(u64::MAX);
    let window = current.saturating_sub(BLOCK_HASH_HISTORY)..current;
    let ctx = &mut frame.host;
    if let Some(number) = number.filter(|number| window.contains(number)) {
        let view = &mut ctx.journaled_state.database;
        match view.known_hash(number) {
            Ok(Some(_)) => {}
            Ok(None) => {
                view.unknown_block = Some(number);
                return Err(InstructionResult::NotActivated);
            }
            Err(interrupt) => {
                ctx.error = Err(ContextError::Db(interrupt.into()));
                return Err(InstructionResult::FatalExternalError);
            }
        }
    }
    host::blockhash(frame)
}

/// The rules of Ethereum mainnet, with the two exceptions of this module.
struct Rules<'a>(PhantomData<&'a ()>);

impl<'a> Handler for Rules<'a> {
    type Evm = Machine<'a>;
    type Error = Failure;
    type HaltReason = HaltReason;

    fn run_exec_loop(
        &mut self,
        machine: &mut Machine<'a>,
        first: FrameInit,
    ) -> Result<FrameResult, Failure> {
        consult_for_frame(machine, &first.frame_input)?;
        if let ItemOrResult::Result(result) = machine.frame_init(first)? {
            return Ok(result);
        }
        loop {
            let result = match machine.frame_run()? {
                ItemOrResult::Result(result) => result,
                ItemOrResult::Item(init) => {
                    consult_for_frame(machine, &init.frame_input)?;
                    match machine.frame_init(init)? {
                        ItemOrResult::Item(_) => continue,
                        ItemOrResult::Result(result) => result,
                    }
                }
            };
            if let Some(last) = machine.frame_return_result(result)? {
                return Ok(last);
            }
        }
    }

    /// Leaves the reward to be added to a coinbase whose balance is not loaded, so that
    /// transactions that pay the same coinbase do not conflict.
    fn reward_beneficiary(
        &self,
        machine: &mut Machine<'a>,
        result: &mut FrameResult,
    ) -> Result<(), Failure> {
        let (block, tx, cfg, journal, (), _) = machine.ctx.all_mut();
        let base_fee = u128::from(block.basefee());
        let price = tx.effective_gas_price(base_fee);
        let burnt = if cfg.spec.is_enabled_in(SpecId::LONDON) { base_fee } else { 0 };
        let gas = result.gas();
        let used = gas.used().saturating_sub(gas.reservoir());
        let reward = U256::from(price.saturating_sub(burnt)) * U256::from(used);
        let coinbase = block.beneficiary();
        let trace = &journal.database.trace;
        if trace.account(&coinbase).is_some_and(|account| !account.hollow) {
            journal.load_account_mut(coinbase)?.incr_balance(reward);
        } else {
            journal.database.reward = Some(reward);
        }
        Ok(())
    }
}

/// Makes sure that the accounts which a new frame takes value or a nonce from, or gives value to,
/// are loaded.
fn consult_for_frame(machine: &Machine<'_>, input: &FrameInput) -> Result<(), Stop> {
    let view = &machine.ctx.journaled_state.database;
    match input {
        FrameInput::Call(call) => match call.value {
            CallValue::Transfer(value) if !value.is_zero() => {
                view.consult(&call.caller)?;
                view.consult(&call.target_address)
            }
            _ => Ok(()),
        },
        FrameInput::Create(create) => view.consult(&create.caller()),
        FrameInput::Empty => Ok(()),
    }
}
