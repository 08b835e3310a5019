//! What a request says is different from the state.

use alloy_rpc_types_eth::TransactionInput;
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};

use super::*;

fn call(
    map: &mut Map,
    request: TransactionRequest,
    overrides: &[(Address, AccountOverride)],
) -> Result<CallResult, QueryError> {
    let mut simulation = simulation(Task::Call(Box::new(request)));
    simulation.overrides = overrides.iter().cloned().collect::<StateOverride>();
    match map.answer(simulation)? {
        Answer::Call(result) => Ok(result),
        answer => panic!("{answer:?}"),
    }
}

/// The sum of slots 1 and 2.
fn sums() -> Code {
    Code::new().push(1).ops(&[SLOAD]).push(2).ops(&[SLOAD, ADD]).give_back()
}

fn storage(slots: &[(u8, u8)]) -> impl Iterator<Item = (B256, B256)> {
    slots.iter().map(|(slot, word)| (B256::with_last_byte(*slot), B256::with_last_byte(*word)))
}

fn map() -> Map {
    let storage = BTreeMap::from([(U256::from(1), U256::from(10)), (U256::from(2), U256::from(5))]);
    let code = sums().build();
    let account = GenesisAccount { code, storage, ..GenesisAccount::default() };
    Map::new(&ChainParams::new(CHAIN), &BTreeMap::from([(CONTRACT, account)]))
}

#[test]
fn storage_is_replaced_whole_or_in_part() {
    let mut map = map();
    let mut sum = |account: AccountOverride| {
        word(&call(&mut map, request(), &[(CONTRACT, account)]).unwrap().output)
    };
    let none = AccountOverride::default();
    assert_eq!(sum(none.clone()), U256::from(15));
    assert_eq!(sum(none.clone().with_state_diff(storage(&[(1, 3)]))), U256::from(8));
    assert_eq!(sum(none.clone().with_state(storage(&[(1, 3)]))), U256::from(3));
    let both = none.with_state(storage(&[])).with_state_diff(storage(&[]));
    let error = call(&mut map, request(), &[(CONTRACT, both)]).unwrap_err();
    let reason = format!("account {CONTRACT} has both 'state' and 'stateDiff'");
    assert_eq!(error, QueryError::Invalid(reason));
}

#[test]
fn balance_nonce_and_code_are_replaced() {
    let mut map = map();
    let code = Code::new().ops(&[CALLVALUE]).give_back().build();
    let rich = AccountOverride::default().with_balance(U256::from(9));
    let contract = AccountOverride::default().with_code(code);
    let overrides = [(POOR, rich), (CONTRACT, contract)];
    let pay = request().from(POOR).value(U256::from(9));
    assert_eq!(word(&call(&mut map, pay, &overrides).unwrap().output), U256::from(9));
    // A creation's address follows from the nonce.
    let create = Code::new().push(0).push(0).push(0).ops(&[CREATE]).give_back().build();
    let creator = AccountOverride::default().with_code(create).with_nonce(41);
    let result = call(&mut map, request(), &[(CONTRACT, creator)]).unwrap();
    assert_eq!(result.output[12..], CONTRACT.create(41)[..]);
}

#[test]
fn precompiled_contracts_move_and_go() {
    let identity = Address::with_last_byte(4);
    let mut map = map();
    let ask = |to| request().to(to).input(TransactionInput::new([1, 2].into()));
    let to = AccountOverride { move_precompile_to: Some(POOR), ..AccountOverride::default() };
    let moved = [(identity, to.clone())];
    assert_eq!(call(&mut map, ask(POOR), &moved).unwrap().output[..], [1, 2]);
    assert!(call(&mut map, ask(identity), &moved).unwrap().output.is_empty());
    // Whatever is said of its address, it is gone.
    let gone = [(identity, AccountOverride::default().with_balance(U256::ONE))];
    assert!(call(&mut map, ask(identity), &gone).unwrap().output.is_empty());
    assert_eq!(call(&mut map, ask(identity), &[]).unwrap().output[..], [1, 2]);

    let invalid = |overrides: &[_]| call(&mut Map::with(&[]), ask(POOR), overrides).unwrap_err();
    let none = QueryError::Invalid(format!("account {POOR} is not a precompile"));
    assert_eq!(invalid(&[(POOR, to.clone())]), none);
    let taken = QueryError::Invalid(format!("account {POOR} is already overridden"));
    assert_eq!(invalid(&[(identity, to), (POOR, AccountOverride::default())]), taken);
}
