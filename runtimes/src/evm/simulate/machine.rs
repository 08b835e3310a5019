//! revm over a state with what a simulation has done to it.

use alloy_primitives::{Address, Bytes};
use parsec_ethereum::{Environment, QueryError};
use revm::context::result::{EVMError, ResultAndState};
use revm::context::{BlockEnv, CfgEnv, Context, Evm, Journal, LocalContext, TxEnv};
use revm::context_interface::result::InvalidTransaction;
use revm::database::CacheDB;
use revm::handler::instructions::EthInstructions;
use revm::interpreter::interpreter::EthInterpreter;
use revm::state::EvmState;
use revm::{DatabaseCommit, ExecuteEvm, InspectEvm, Inspector, SystemCallEvm};

use super::Reader;
use super::base::{Base, Stop, World};
use super::environment::Rules;
use super::precompiles::Precompiles;
use super::words::{self, Failure};

/// What instructions and inspectors see.
pub(super) type Frame<'a> =
    Context<BlockEnv, TxEnv, CfgEnv, World<'a>, Journal<World<'a>>, (), LocalContext>;

/// A transaction, with the rules and the block that it is executed by and in.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) tx: TxEnv,
    pub(super) cfg: CfgEnv,
    pub(super) block: BlockEnv,
}

/// A state and the rules of a block on it.
pub(super) struct Machine<'a> {
    world: Option<World<'a>>,
    pub(super) rules: Rules,
    pub(super) precompiles: Precompiles,
}

/// What became of an execution; nothing of it is in the state yet.
pub(super) type Executed = Result<ResultAndState, Failure>;

impl<'a> Machine<'a> {
    /// A machine that executes in that block, on that state.
    pub(super) fn new(
        chain_id: u64,
        reader: &'a mut dyn Reader,
        environment: &Environment,
    ) -> Result<Self, QueryError> {
        let base = Base::new(reader);
        for (number, hash) in &environment.hashes {
            base.set_hash(*number, *hash);
        }
        let rules = Rules::read(chain_id, &base, environment)?;
        let precompiles = Precompiles::new(rules.cfg.spec);
        Ok(Self { world: Some(CacheDB::new(base)), rules, precompiles })
    }

    /// Goes to another block.
    pub(super) fn enter(
        &mut self,
        chain_id: u64,
        environment: &Environment,
    ) -> Result<(), QueryError> {
        self.rules = Rules::read(chain_id, &self.world().db, environment)?;
        Ok(())
    }

    pub(super) fn world(&mut self) -> &mut World<'a> {
        self.world.as_mut().expect("every execution gives the state back")
    }

    /// The state and the precompiled contracts, both to be changed.
    pub(super) fn parts(&mut self) -> (&mut World<'a>, &mut Precompiles) {
        let world = self.world.as_mut().expect("every execution gives the state back");
        (world, &mut self.precompiles)
    }

    /// The terms of a transaction that is executed as the chain would.
    pub(super) fn terms(&self, tx: TxEnv) -> Terms {
        Terms { tx, cfg: self.rules.cfg.clone(), block: self.rules.block.clone() }
    }

    /// Executes a transaction.
    pub(super) fn execute(&mut self, terms: &Terms) -> Executed {
        let mut evm = self.evm(terms, ());
        let result = evm.transact(terms.tx.clone());
        self.world = Some(evm.ctx.journaled_state.database);
        result.map_err(|error| failure(error, terms))
    }

    /// Calls a contract as the system: nobody pays for it, and it is valid whatever it is.
    pub(super) fn call_system(&mut self, contract: Address, data: Bytes) -> Executed {
        let mut terms = self.terms(TxEnv::default());
        terms.cfg.tx_gas_limit_cap = Some(u64::MAX);
        let mut evm = self.evm(&terms, ());
        let result = evm.system_call(contract, data);
        self.world = Some(evm.ctx.journaled_state.database);
        result.map_err(|error| failure(error, &terms))
    }

    /// Executes a transaction under an inspector's eyes, which is given back.
    pub(super) fn inspect<I: Inspector<Frame<'a>>>(
        &mut self,
        terms: &Terms,
        inspector: I,
    ) -> (Executed, I) {
        let mut evm = self.evm(terms, inspector);
        let result = evm.inspect_tx(terms.tx.clone());
        self.world = Some(evm.ctx.journaled_state.database);
        (result.map_err(|error| failure(error, terms)), evm.inspector)
    }

    /// Makes what an execution did a part of the state.
    pub(super) fn commit(&mut self, state: EvmState) {
        self.world().commit(state);
    }

    fn evm<I>(
        &mut self,
        terms: &Terms,
        inspector: I,
    ) -> Evm<
        Frame<'a>,
        I,
        EthInstructions<EthInterpreter, Frame<'a>>,
        Precompiles,
        revm::handler::EthFrame<EthInterpreter>,
    > {
        let world = self.world.take().expect("every execution gives the state back");
        let context = Frame::new(world, terms.cfg.spec)
            .with_cfg(terms.cfg.clone())
            .with_block(terms.block.clone());
        let instructions = EthInstructions::new_mainnet_with_spec(terms.cfg.spec);
        Evm::new_with_inspector(context, inspector, instructions, self.precompiles.clone())
    }
}

fn failure(error: EVMError<Stop, InvalidTransaction>, terms: &Terms) -> Failure {
    match error {
        EVMError::Transaction(error) => {
            let reason = words::invalid(&error, &terms.tx, &terms.block);
            Failure::Invalid(error, reason)
        }
        EVMError::Database(Stop(error)) => Failure::Query(error),
        EVMError::Header(error) => Failure::Query(QueryError::Unavailable(error.to_string())),
        EVMError::Custom(reason) => Failure::Query(QueryError::Unsupported(reason)),
        EVMError::CustomAny(error) => Failure::Query(QueryError::Unsupported(error.to_string())),
    }
}
