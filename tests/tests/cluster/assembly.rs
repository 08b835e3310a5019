//! Small contracts in machine code, for what no compiled contract shows as plainly.

use alloy_primitives::U256;
use bytes::Bytes;

/// The creation code of a contract with this code.
pub(crate) fn deployer(code: &[u8]) -> Bytes {
    let size = u16::try_from(code.len()).unwrap().to_be_bytes();
    // PUSH2 size, DUP1, PUSH1 12, PUSH1 0, CODECOPY, PUSH1 0, RETURN: 12 bytes.
    let copy = [0x61, size[0], size[1], 0x80, 0x60, 12, 0x60, 0, 0x39, 0x60, 0, 0xf3];
    [&copy[..], code].concat().into()
}

/// A contract that returns `version`, and keeps it in the slot that its caller's address names. Of
/// a call with data it destroys itself.
pub(crate) fn versioned(version: u8) -> Vec<u8> {
    vec![
        0x36, 0x60, 17, 0x57, // CALLDATASIZE, PUSH1 17, JUMPI
        0x60, version, 0x33, 0x55, // PUSH1 version, CALLER, SSTORE
        0x60, version, 0x5f, 0x52, // PUSH1 version, PUSH0, MSTORE
        0x60, 32, 0x5f, 0xf3, // PUSH1 32, PUSH0, RETURN
        0x00, // STOP
        0x5b, 0x33, 0xff, // JUMPDEST, CALLER, SELFDESTRUCT
    ]
}

/// A contract that hands calls on to the code at the address in its slot 0, which runs on the
/// proxy's own storage. A call with a word of data makes that the address.
pub(crate) fn proxy() -> Vec<u8> {
    vec![
        0x36, 0x60, 32, 0x14, 0x60, 21, 0x57, // CALLDATASIZE, PUSH1 32, EQ, PUSH1 21, JUMPI
        0x60, 32, 0x5f, 0x5f, 0x5f, // PUSH1 32, PUSH0, PUSH0, PUSH0
        0x5f, 0x54, 0x5a, 0xf4, // PUSH0, SLOAD, GAS, DELEGATECALL
        0x50, 0x60, 32, 0x5f, 0xf3, // POP, PUSH1 32, PUSH0, RETURN
        0x5b, 0x5f, 0x35, 0x5f, 0x55,
        0x00, // JUMPDEST, PUSH0, CALLDATALOAD, PUSH0, SSTORE, STOP
    ]
}

/// A contract that always creates at the same address, whatever the code: a call with a word of data
/// creates a contract with the code that stands at that address. It answers a call without data by
/// the word of the last one.
pub(crate) fn factory() -> Vec<u8> {
    let creation = metamorphic();
    let size = u8::try_from(creation.len()).unwrap();
    let mut code = vec![
        0x36, 0x60, 12, 0x57, // CALLDATASIZE, PUSH1 12, JUMPI
        0x5f, 0x54, 0x5f, 0x52, 0x60, 32, 0x5f,
        0xf3, // PUSH0, SLOAD, PUSH0, MSTORE, return it
        0x5b, 0x5f, 0x35, 0x5f, 0x55, // JUMPDEST, PUSH0, CALLDATALOAD, PUSH0, SSTORE
    ];
    code.push(0x60 - 1 + size); // PUSHn creation
    code.extend(&creation);
    code.extend([0x5f, 0x52]); // PUSH0, MSTORE
    // PUSH0 (salt), PUSH1 size, PUSH1 32 - size, PUSH0 (value), CREATE2, STOP
    code.extend([0x5f, 0x60, size, 0x60, 32 - size, 0x5f, 0xf5, 0x00]);
    code
}

/// Creation code that asks its creator for an address, and becomes the code that stands there.
pub(crate) fn metamorphic() -> Vec<u8> {
    vec![
        0x60, 32, 0x5f, 0x5f, 0x5f, 0x33, 0x5a,
        0xfa, // PUSH1 32, PUSH0 x3, CALLER, GAS, STATICCALL
        0x50, 0x5f, 0x51, // POP, PUSH0, MLOAD
        0x80, 0x3b, // DUP1, EXTCODESIZE
        0x80, 0x5f, 0x5f, 0x84, 0x3c, // DUP1, PUSH0, PUSH0, DUP5, EXTCODECOPY
        0x5f, 0xf3, // PUSH0, RETURN
    ]
}

/// A number as call data.
pub(crate) fn word(number: impl Into<U256>) -> Bytes {
    Bytes::copy_from_slice(&number.into().to_be_bytes::<32>())
}
