//! A little assembler for test contracts. No instruction is newer than Frontier unless it says so.

use alloy_primitives::{Address, Bytes, U256};
use revm::bytecode::opcode;

/// Code under construction.
#[derive(Debug, Clone, Default)]
pub(in crate::evm) struct Code(Vec<u8>);

impl Code {
    pub(in crate::evm) fn new() -> Self {
        Self::default()
    }

    /// Appends instructions without operands.
    pub(in crate::evm) fn ops(mut self, ops: &[u8]) -> Self {
        self.0.extend_from_slice(ops);
        self
    }

    /// Pushes a number.
    pub(in crate::evm) fn push(self, number: u64) -> Self {
        self.push_bytes(&U256::from(number).to_be_bytes_trimmed_vec())
    }

    pub(in crate::evm) fn push_address(self, address: Address) -> Self {
        self.push_bytes(address.as_slice())
    }

    fn push_bytes(mut self, bytes: &[u8]) -> Self {
        let bytes = if bytes.is_empty() { &[0] } else { bytes };
        self.0.push(opcode::PUSH1 - 1 + u8::try_from(bytes.len()).unwrap());
        self.0.extend(bytes);
        self
    }

    /// Calls `to` with `value` and no data, and all gas but what a failure is to leave.
    pub(in crate::evm) fn call(self, to: Address, value: u64) -> Self {
        let zeros = |code: Self| code.push(0).push(0).push(0).push(0);
        zeros(self).push(value).push_address(to).push(50_000).ops(&[opcode::CALL])
    }

    /// Replaces the top of the stack by the slot of that entry of the mapping at `place`.
    pub(in crate::evm) fn entry(self, place: u64) -> Self {
        let hashed = self.push(0).ops(&[opcode::MSTORE]).push(place).push(32);
        hashed.ops(&[opcode::MSTORE]).push(64).push(0).ops(&[opcode::KECCAK256])
    }

    /// Pushes the n-th word of the data behind the selector.
    pub(in crate::evm) fn argument(self, n: u64) -> Self {
        self.push(4 + 32 * n).ops(&[opcode::CALLDATALOAD])
    }

    /// Stores the top of the stack at `slot`.
    pub(in crate::evm) fn store(self, slot: u64) -> Self {
        self.push(slot).ops(&[opcode::SSTORE])
    }

    /// Returns the top of the stack.
    pub(in crate::evm) fn give_back(self) -> Self {
        self.push(0).ops(&[opcode::MSTORE]).push(32).push(0).ops(&[opcode::RETURN])
    }

    pub(in crate::evm) fn build(self) -> Bytes {
        self.0.into()
    }

    /// The code that creates a contract with this code.
    pub(in crate::evm) fn deployer(self) -> Bytes {
        let size = self.0.len();
        let copy = Self::new()
            .ops(&[opcode::PUSH2])
            .ops(&u16::try_from(size).unwrap().to_be_bytes())
            .ops(&[opcode::DUP1, opcode::PUSH1, 12, opcode::PUSH1, 0, opcode::CODECOPY])
            .ops(&[opcode::PUSH1, 0, opcode::RETURN]);
        assert_eq!(copy.0.len(), 12);
        copy.ops(&self.0).build()
    }
}

/// A token: moves the second word of the data from the caller's slot to the one that the first
/// names, and announces it.
pub(in crate::evm) fn token() -> Code {
    use opcode::*;
    Code::new()
        .ops(&[PUSH1, 32, CALLDATALOAD, DUP1, CALLER, SLOAD, SUB, CALLER, SSTORE])
        .ops(&[PUSH1, 0, CALLDATALOAD, DUP1, SLOAD, DUP3, ADD, SWAP1, SSTORE])
        .ops(&[PUSH1, 1, PUSH1, 0, PUSH1, 0, LOG1, STOP])
}
