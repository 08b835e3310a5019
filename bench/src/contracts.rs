//! The Ethereum contracts that are checked in, and the calldata to deploy and call them.
//!
//! Their sources, the compiler's settings and the script that rebuilds them are in
//! `runtimes/contracts/`.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use bytes::Bytes;

/// Bytes of a function selector.
const SELECTOR_BYTES: usize = 4;
/// Bytes of a word of the ABI.
const WORD_BYTES: usize = 32;

/// `transfer(address,uint256)`.
const TRANSFER: [u8; SELECTOR_BYTES] = [0xa9, 0x05, 0x9c, 0xbb];
/// `balanceOf(address)`.
const BALANCE_OF: [u8; SELECTOR_BYTES] = [0x70, 0xa0, 0x82, 0x31];
/// `totalSupply()`.
const TOTAL_SUPPLY: [u8; SELECTOR_BYTES] = [0x18, 0x16, 0x0d, 0xdd];
/// `approve(address,uint256)`.
const APPROVE: [u8; SELECTOR_BYTES] = [0x09, 0x5e, 0xa7, 0xb3];
/// `transferFrom(address,address,uint256)`.
const TRANSFER_FROM: [u8; SELECTOR_BYTES] = [0x23, 0xb8, 0x72, 0xdd];
/// `mint(address,uint256)`.
const MINT: [u8; SELECTOR_BYTES] = [0x40, 0xc1, 0x0f, 0x19];
/// `sync()`.
const SYNC: [u8; SELECTOR_BYTES] = [0xff, 0xf6, 0xca, 0xe9];
/// `swap(uint256,bool,uint256,address)`.
const SWAP: [u8; SELECTOR_BYTES] = [0xdd, 0xca, 0xb5, 0x26];

/// `mint()`.
const MINT_NEXT: [u8; SELECTOR_BYTES] = [0x12, 0x49, 0xc5, 0x8b];

/// The storage slot of both reserves of `Pool.sol`: 112 bits each, the first one below.
pub const RESERVES_SLOT: U256 = U256::ZERO;
/// The storage slot of the counter of `Nft.sol`.
pub const MINTED_SLOT: U256 = U256::from_limbs([6, 0, 0, 0]);
/// The storage slot of the mapping from numbers to owners of `Nft.sol`.
const OWNERS_SLOT: U256 = U256::from_limbs([2, 0, 0, 0]);
/// The storage slot of the mapping from owners to how many they have of `Nft.sol`.
const OWNED_SLOT: U256 = U256::from_limbs([3, 0, 0, 0]);

/// The storage slot of the mapping from holders to balances: the first that ERC20.sol declares.
const BALANCES_SLOT: U256 = U256::ZERO;

/// The creation code of `Token.sol`, an OpenZeppelin ERC-20, without constructor arguments.
pub static TOKEN_CREATION_CODE: LazyLock<Bytes> =
    LazyLock::new(|| creation_code(include_str!("../../runtimes/contracts/Token.json")));

/// The creation code of `Mintable.sol`, an OpenZeppelin ERC-20 that its owner mints, without
/// constructor arguments.
pub static MINTABLE_CREATION_CODE: LazyLock<Bytes> =
    LazyLock::new(|| creation_code(include_str!("../../runtimes/contracts/Mintable.json")));

/// The creation code of `Pool.sol`, which swaps two tokens, without constructor arguments.
pub static POOL_CREATION_CODE: LazyLock<Bytes> =
    LazyLock::new(|| creation_code(include_str!("../../runtimes/contracts/Pool.json")));

/// The creation code of `Nft.sol`, an OpenZeppelin ERC-721 that numbers its tokens, without
/// constructor arguments.
pub static NFT_CREATION_CODE: LazyLock<Bytes> =
    LazyLock::new(|| creation_code(include_str!("../../runtimes/contracts/Nft.json")));

/// The creation code in the file that `build.mjs` writes for a contract.
fn creation_code(artifact: &str) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Artifact {
        bytecode: String,
    }
    let artifact: Artifact =
        serde_json::from_str(artifact).expect("build.mjs writes JSON with a bytecode");
    hex::decode(artifact.bytecode).expect("build.mjs writes bytecode in hexadecimal").into()
}

/// The input of a transaction that deploys a token: its deployer holds the whole `supply`.
#[must_use]
pub fn deploy_token(name: &str, symbol: &str, supply: U256) -> Bytes {
    let name = abi_text(name);
    let symbol = abi_text(symbol);
    let heads = 3 * WORD_BYTES;
    let mut input = TOKEN_CREATION_CODE.to_vec();
    input.extend_from_slice(&U256::from(heads).to_be_bytes::<WORD_BYTES>());
    input.extend_from_slice(&U256::from(heads + name.len()).to_be_bytes::<WORD_BYTES>());
    input.extend_from_slice(&supply.to_be_bytes::<WORD_BYTES>());
    input.extend_from_slice(&name);
    input.extend_from_slice(&symbol);
    input.into()
}

/// The input of a transaction that deploys a token which its deployer may mint.
#[must_use]
pub fn deploy_mintable(name: &str, symbol: &str) -> Bytes {
    deploy_named(&MINTABLE_CREATION_CODE, name, symbol)
}

/// The input of a transaction that deploys a collection which anyone may mint.
#[must_use]
pub fn deploy_nft(name: &str, symbol: &str) -> Bytes {
    deploy_named(&NFT_CREATION_CODE, name, symbol)
}

fn deploy_named(creation_code: &Bytes, name: &str, symbol: &str) -> Bytes {
    let name = abi_text(name);
    let symbol = abi_text(symbol);
    let heads = 2 * WORD_BYTES;
    let mut input = creation_code.to_vec();
    input.extend_from_slice(&U256::from(heads).to_be_bytes::<WORD_BYTES>());
    input.extend_from_slice(&U256::from(heads + name.len()).to_be_bytes::<WORD_BYTES>());
    input.extend_from_slice(&name);
    input.extend_from_slice(&symbol);
    input.into()
}

/// The input of a transaction that deploys a pool of two tokens.
#[must_use]
pub fn deploy_pool(first: Address, second: Address) -> Bytes {
    let mut input = POOL_CREATION_CODE.to_vec();
    input.extend_from_slice(first.into_word().as_slice());
    input.extend_from_slice(second.into_word().as_slice());
    input.into()
}

/// A string as the ABI has it: its length, then its bytes, padded to whole words.
fn abi_text(text: &str) -> Vec<u8> {
    let mut encoded = U256::from(text.len()).to_be_bytes::<WORD_BYTES>().to_vec();
    encoded.extend_from_slice(text.as_bytes());
    encoded.resize(encoded.len().next_multiple_of(WORD_BYTES), 0);
    encoded
}

/// The input of a call that sends `amount` of a token to `to`.
#[must_use]
pub fn transfer(to: Address, amount: U256) -> Bytes {
    let mut input = Vec::with_capacity(SELECTOR_BYTES + 2 * WORD_BYTES);
    input.extend_from_slice(&TRANSFER);
    input.extend_from_slice(to.into_word().as_slice());
    input.extend_from_slice(&amount.to_be_bytes::<WORD_BYTES>());
    input.into()
}

/// The input of a call of these words.
fn call(selector: [u8; SELECTOR_BYTES], words: &[B256]) -> Bytes {
    let mut input = Vec::with_capacity(SELECTOR_BYTES + words.len() * WORD_BYTES);
    input.extend_from_slice(&selector);
    words.iter().for_each(|word| input.extend_from_slice(word.as_slice()));
    input.into()
}

/// The input of a call that allows `spender` to send `amount` of the caller's tokens.
#[must_use]
pub fn approve(spender: Address, amount: U256) -> Bytes {
    call(APPROVE, &[spender.into_word(), amount.into()])
}

/// The input of a call that sends `amount` of a token from `from`, who allowed it, to `to`.
#[must_use]
pub fn transfer_from(from: Address, to: Address, amount: U256) -> Bytes {
    call(TRANSFER_FROM, &[from.into_word(), to.into_word(), amount.into()])
}

/// The input of a call by which the owner of a token mints `amount` for `to`.
#[must_use]
pub fn mint(to: Address, amount: U256) -> Bytes {
    call(MINT, &[to.into_word(), amount.into()])
}

/// The input of a call that mints the next of a collection for the caller.
#[must_use]
pub fn mint_next() -> Bytes {
    Bytes::from_static(&MINT_NEXT)
}

/// The input of a call by which a pool takes what it has for its reserves.
#[must_use]
pub fn sync_pool() -> Bytes {
    Bytes::from_static(&SYNC)
}

/// The input of a call that swaps `amount` of a pool's first token (else of its second) for as
/// much of the other as it gives, which goes to `to`.
#[must_use]
pub fn swap(amount: U256, first: bool, to: Address) -> Bytes {
    let first = U256::from(u8::from(first));
    call(SWAP, &[amount.into(), first.into(), B256::ZERO, to.into_word()])
}

/// The input of a call that returns what `holder` has of a token.
#[must_use]
pub fn balance_of(holder: Address) -> Bytes {
    let mut input = Vec::with_capacity(SELECTOR_BYTES + WORD_BYTES);
    input.extend_from_slice(&BALANCE_OF);
    input.extend_from_slice(holder.into_word().as_slice());
    input.into()
}

/// The input of a call that returns how much there is of a token.
#[must_use]
pub fn total_supply() -> Bytes {
    Bytes::from_static(&TOTAL_SUPPLY)
}

/// The storage slot of a token in which the balance of `holder` lies.
#[must_use]
pub fn balance_slot(holder: Address) -> B256 {
    mapped(holder.into_word(), BALANCES_SLOT)
}

/// The storage slot of a collection in which the owner of a number lies.
#[must_use]
pub fn owner_slot(number: U256) -> B256 {
    mapped(number.into(), OWNERS_SLOT)
}

/// The storage slot of a collection in which it lies how many `owner` has.
#[must_use]
pub fn owned_slot(owner: Address) -> B256 {
    mapped(owner.into_word(), OWNED_SLOT)
}

/// The storage slot of an entry of a mapping.
fn mapped(entry: B256, mapping: U256) -> B256 {
    let mut hashed = [0; 2 * WORD_BYTES];
    hashed[..WORD_BYTES].copy_from_slice(entry.as_slice());
    hashed[WORD_BYTES..].copy_from_slice(&mapping.to_be_bytes::<WORD_BYTES>());
    keccak256(hashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_hashes_of_signatures() {
        let signatures = [
            ("transfer(address,uint256)", TRANSFER),
            ("balanceOf(address)", BALANCE_OF),
            ("totalSupply()", TOTAL_SUPPLY),
            ("approve(address,uint256)", APPROVE),
            ("transferFrom(address,address,uint256)", TRANSFER_FROM),
            ("mint(address,uint256)", MINT),
            ("mint()", MINT_NEXT),
            ("sync()", SYNC),
            ("swap(uint256,bool,uint256,address)", SWAP),
        ];
        for (signature, selector) in signatures {
            assert_eq!(keccak256(signature)[..SELECTOR_BYTES], selector, "{signature}");
        }
    }

    #[test]
    fn the_token_calls_what_we_call() {
        let token: &[_] = &[TRANSFER, BALANCE_OF, TOTAL_SUPPLY, APPROVE, TRANSFER_FROM];
        let (mintable, pool): (&[_], &[_]) = (&[TRANSFER, MINT], &[SYNC, SWAP]);
        for (code, selectors) in [
            (&TOKEN_CREATION_CODE, token),
            (&MINTABLE_CREATION_CODE, mintable),
            (&POOL_CREATION_CODE, pool),
            (&NFT_CREATION_CODE, &[MINT_NEXT][..]),
        ] {
            for selector in selectors {
                let dispatched = code.windows(SELECTOR_BYTES).any(|window| window == selector);
                assert!(dispatched, "{selector:02x?} is not in the contract's code");
            }
        }
    }

    #[test]
    fn constructor_arguments_follow_the_abi() {
        let input = deploy_token("Parsec Token", "PT", U256::from(7));
        let words: Vec<_> =
            input[TOKEN_CREATION_CODE.len()..].chunks(WORD_BYTES).map(<[u8]>::to_vec).collect();
        let number = |n: u8| U256::from(n).to_be_bytes::<WORD_BYTES>().to_vec();
        let text = |text: &str| {
            let mut word = text.as_bytes().to_vec();
            word.resize(WORD_BYTES, 0);
            word
        };
        let expected = [
            number(96),
            number(160),
            number(7),
            number(12),
            text("Parsec Token"),
            number(2),
            text("PT"),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_transfer_is_encoded_as_solidity_does() {
        let to = "0x00000000000000000000000000000000000000aa".parse().unwrap();
        let expected = concat!(
            "a9059cbb",
            "00000000000000000000000000000000000000000000000000000000000000aa",
            "0000000000000000000000000000000000000000000000000000000000000100",
        );
        assert_eq!(hex::encode(transfer(to, U256::from(256))), expected);
    }
}
