//! The precompiled contracts of a simulation, which may be moved and taken away.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use alloy_primitives::map::AddressSet;
use revm::context::LocalContextTr;
use revm::context_interface::{Cfg, ContextTr};
use revm::handler::{EthPrecompiles, PrecompileProvider};
use revm::interpreter::{CallInputs, InterpreterResult};
use revm::primitives::hardfork::SpecId;

/// The precompiled contracts by the addresses where they are called.
#[derive(Debug, Clone)]
pub(super) struct Precompiles {
    all: EthPrecompiles,
    /// The address of the contract that is called at another; none if all are where they were.
    moved: Option<BTreeMap<Address, Address>>,
    warm: AddressSet,
}

impl Precompiles {
    pub(super) fn new(spec: SpecId) -> Self {
        let all = EthPrecompiles::new(spec);
        let warm = all.warm_addresses().clone();
        Self { all, moved: None, warm }
    }

    pub(super) fn contains(&self, address: &Address) -> bool {
        self.warm.contains(address)
    }

    /// Lets what is called at `from` be called at `to`, too.
    pub(super) fn copy(&mut self, from: Address, to: Address) {
        let moved = self.moved();
        if let Some(contract) = moved.get(&from).copied() {
            moved.insert(to, contract);
            self.warm.insert(to);
        }
    }

    /// Lets an address have no precompiled contract.
    pub(super) fn remove(&mut self, address: &Address) {
        self.moved().remove(address);
        self.warm.remove(address);
    }

    fn moved(&mut self) -> &mut BTreeMap<Address, Address> {
        let all = self.all.precompiles;
        self.moved
            .get_or_insert_with(|| all.addresses().map(|address| (*address, *address)).collect())
    }
}

impl<C> PrecompileProvider<C> for Precompiles
where
    C: ContextTr<Cfg: Cfg<Spec = SpecId>, Local: LocalContextTr>,
{
    type Output = InterpreterResult;

    fn set_spec(&mut self, _: SpecId) -> bool {
        // They were made for the rules of this simulation. What is warm goes into each journal
        // because it has none to begin with.
        false
    }

    fn run(
        &mut self,
        context: &mut C,
        inputs: &CallInputs,
    ) -> Result<Option<InterpreterResult>, String> {
        let Some(moved) = &self.moved else {
            return self.all.run(context, inputs);
        };
        match moved.get(&inputs.bytecode_address) {
            None => Ok(None),
            Some(contract) => {
                let inputs = CallInputs { bytecode_address: *contract, ..inputs.clone() };
                self.all.run(context, &inputs)
            }
        }
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.warm
    }
}
