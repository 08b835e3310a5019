//! Accounts, code, storage, calls and access lists.

use alloy_primitives::keccak256;
use alloy_rpc_types_eth::{AccessList, AccessListItem, TransactionInput};
use parsec_ethereum::query::CallFailure;
use parsec_ethereum::{Account, Recorded};

use super::*;
use crate::evm::keys::{self, CodeRecord};
use crate::evm::tests::Wallet;

fn invalid(map: &mut Map, request: TransactionRequest) -> String {
    match map.call(request) {
        Err(QueryError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn accounts_code_and_storage_are_what_the_state_holds() {
    let code = Code::new().push(1).give_back();
    let mut map = Map::with(&[(CONTRACT, code.clone())]);
    // It was destroyed three times, and stored a word since then.
    let hash = Some(keccak256(code.clone().build()));
    let record = CodeRecord { hash, incarnation: 3 }.encode().unwrap();
    map.values.insert(keys::code_record(&CONTRACT), record);
    let slot = keys::storage(&CONTRACT, 3, U256::from(5));
    map.values.insert(slot, keys::encode_word(U256::from(6)).unwrap());
    let mut ask = |query| answer(CHAIN, &mut map, &query).unwrap();

    let Answer::Account(rich) = ask(Query::Account(RICH)) else { panic!() };
    assert_eq!(rich, Account { balance: U256::from(MILLION), ..Account::default() });
    let Answer::Account(contract) = ask(Query::Account(CONTRACT)) else { panic!() };
    assert_eq!(contract.code_hash, hash);
    let Answer::Account(nobody) = ask(Query::Account(POOR)) else { panic!() };
    assert_eq!(nobody, Account::default());
    let Answer::Code(found) = ask(Query::Code(CONTRACT)) else { panic!() };
    assert_eq!(found, code.build());
    let Answer::Code(found) = ask(Query::Code(RICH)) else { panic!() };
    assert!(found.is_empty());
    let slots = vec![U256::from(5), U256::from(6)];
    let Answer::Storage(words) = ask(Query::Storage(CONTRACT, slots)) else { panic!() };
    assert_eq!(words, [B256::with_last_byte(6), B256::ZERO]);
}

#[test]
fn a_call_returns_reverts_or_is_halted() {
    let reverts = Address::repeat_byte(1);
    let invalid = Address::repeat_byte(2);
    let mut map = Map::with(&[
        (CONTRACT, Code::new().push(42).give_back()),
        (reverts, refuses()),
        (invalid, Code::new().ops(&[INVALID])),
    ]);
    let result = map.call(request()).unwrap();
    assert_eq!((word(&result.output), result.failure), (U256::from(42), None));
    assert!(result.gas_used > 21_000 && result.gas_used < 21_100);
    let result = map.call(request().to(reverts)).unwrap();
    assert_eq!((result.output, result.failure), (revert_data(), Some(CallFailure::Reverted)));
    let result = map.call(request().to(invalid)).unwrap();
    let reason = "invalid opcode: INVALID".to_owned();
    assert_eq!(result.failure, Some(CallFailure::Halted(reason)));
    assert_eq!(result.gas_used, 30_000_000);
    // Where nobody is, nothing happens.
    let result = map.call(TransactionRequest::default().to(POOR)).unwrap();
    assert_eq!((result.output, result.failure), (Bytes::new(), None));
}

#[test]
fn a_call_sees_its_block_and_a_base_fee_only_if_it_pays() {
    for (op, seen) in [
        (NUMBER, U256::from(100)),
        (TIMESTAMP, U256::from(1_700_000_000)),
        (GASLIMIT, U256::from(30_000_000)),
        (COINBASE, word(&[0xcb; 20])),
        (DIFFICULTY, word(&[0x44; 32])),
        (CHAINID, U256::from(CHAIN)),
        (BASEFEE, U256::ZERO),
        (GASPRICE, U256::ZERO),
    ] {
        let mut map = Map::with(&[(CONTRACT, Code::new().ops(&[op]).give_back())]);
        assert_eq!(word(&map.call(request()).unwrap().output), seen, "{op:#x}");
    }
    let mut map = Map::with(&[(CONTRACT, Code::new().ops(&[BASEFEE]).give_back())]);
    let paid = map.call(request().gas_price(7)).unwrap();
    assert_eq!(word(&paid.output), U256::from(7));
    let reason = invalid(&mut map, request().gas_price(6).gas_limit(50_000));
    assert_eq!(
        reason,
        format!(
            "err: max fee per gas less than block base fee: address {RICH}, maxFeePerGas: 6, \
             baseFee: 7 (supplied gas 50000)"
        )
    );
}

#[test]
fn the_hashes_of_blocks_are_read_overridden_or_zero() {
    let code = Code::new().push(0).ops(&[CALLDATALOAD, BLOCKHASH]).give_back();
    let mut map = Map::with(&[(CONTRACT, code)]);
    map.hashes.insert(99, B256::repeat_byte(9));
    let input = |number: u64| TransactionInput::new(U256::from(number).to_be_bytes_vec().into());
    for (number, hash) in [(99, [9; 32]), (98, [8; 32]), (97, [0; 32]), (100, [0; 32])] {
        let mut simulation = simulation(Task::Call(Box::new(request().input(input(number)))));
        simulation.environment.hashes = vec![(98, B256::repeat_byte(8))];
        let Answer::Call(result) = map.answer(simulation).unwrap() else { panic!() };
        assert_eq!(result.output[..], hash, "{number}");
    }
}

#[test]
fn who_can_not_pay_is_told_so() {
    let mut map = Map::with(&[]);
    let poor = request().from(POOR).to(RICH).value(U256::from(5)).gas_limit(30_000);
    assert_eq!(
        invalid(&mut map, poor),
        format!(
            "err: insufficient funds for gas * price + value: address {POOR} have 0 want 5 \
             (supplied gas 30000)"
        )
    );
    let dear = request().gas_price(50).gas_limit(30_000);
    assert!(invalid(&mut map, dear).contains("have 1000000 want 1500000"));
    // Without a limit of its own, it has the gas that it can pay for.
    map = Map::with(&[(CONTRACT, Code::new().ops(&[GAS]).give_back())]);
    let gas = map.call(request().gas_price(10).value(U256::from(1_000))).unwrap();
    assert!(word(&gas.output) < U256::from(99_900 - 21_000));
    assert!(word(&gas.output) > U256::from(99_000 - 21_000));
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    let mut map = Map::with(&[]);
    let mut both = request().gas_price(8);
    both.max_fee_per_gas = Some(8);
    assert!(invalid(&mut map, both).starts_with("both gasPrice and (maxFeePerGas"));
    let tip = request().max_fee_per_gas(8).max_priority_fee_per_gas(9);
    assert!(invalid(&mut map, tip).contains("max priority fee per gas higher than max fee"));
    let mut input = request();
    input.input = TransactionInput { input: Some([1].into()), data: Some([2].into()) };
    assert!(invalid(&mut map, input).starts_with("both \"data\" and \"input\""));
    let mut chain = request();
    chain.chain_id = Some(1);
    let reason = "chainId does not match node's (have=1, want=1234)";
    assert_eq!(invalid(&mut map, chain), reason);
    let mut nobody = request();
    nobody.authorization_list = Some(Vec::new());
    assert!(invalid(&mut map, nobody).contains("empty auth list"));
    let mut blobs = request();
    blobs.blob_versioned_hashes = Some(Vec::new());
    assert!(invalid(&mut map, blobs.clone()).contains("missing blob hashes"));
    blobs.to = None;
    assert_eq!(invalid(&mut map, blobs), "missing \"to\" in blob transaction");
    let mut creates = request();
    (creates.authorization_list, creates.to) = (Some(Vec::new()), None);
    assert!(invalid(&mut map, creates).contains("cannot be used to create contract"));
}

#[test]
fn anyone_may_call_with_any_nonce_and_more_gas_than_a_transaction_may_have() {
    let code = Code::new().ops(&[GAS]).give_back();
    let mut map = Map::with(&[(CONTRACT, code.clone()), (POOR, code)]);
    let result = map.call(request().from(POOR).nonce(77)).unwrap();
    assert!(word(&result.output) > U256::from(29_000_000));
    let mut wide = simulation(Task::Call(Box::new(request())));
    wide.environment.gas_limit = u64::MAX;
    let Answer::Call(result) = map.answer(wide).unwrap() else { panic!() };
    assert!(word(&result.output) < U256::from(50_000_000));
}

#[test]
fn a_creation_returns_its_code() {
    let mut map = Map::with(&[]);
    let code = Code::new().push(1).give_back();
    let mut request = TransactionRequest { from: Some(RICH), ..TransactionRequest::default() };
    request.input = TransactionInput::new(code.clone().deployer());
    assert_eq!(map.call(request).unwrap().output, code.build());
}

#[test]
fn each_value_is_read_once_and_what_can_not_be_read_ends_the_call() {
    let code = Code::new().push(1).ops(&[SLOAD]).push(1).ops(&[SLOAD, ADD]).give_back();
    let mut map = Map::with(&[(CONTRACT, code)]);
    map.task(Task::Estimate(Box::new(request()))).unwrap();
    assert!(map.asked.len() > 5);
    assert!(map.asked.values().all(|count| *count == 1), "{:?}", map.asked);

    struct Gone;
    impl Reader for Gone {
        fn value(&mut self, _: &Key) -> Result<Option<Value>, QueryError> {
            Err(QueryError::NotKept { block: 1, oldest: 2 })
        }
        fn block_hash(&mut self, _: u64) -> Result<Option<B256>, QueryError> {
            Ok(None)
        }
    }
    let query = Query::Simulate(Box::new(simulation(Task::Call(Box::new(request())))));
    let error = answer(CHAIN, &mut Gone, &query).unwrap_err();
    assert_eq!(error, QueryError::NotKept { block: 1, oldest: 2 });
}

#[test]
fn damaged_values_are_told_not_hidden() {
    let mut map = Map::with(&[]);
    map.values.insert(keys::account(&RICH), Value::from_static(&[1; 3]));
    let error = map.call(request()).unwrap_err();
    assert!(matches!(&error, QueryError::Unavailable(reason) if reason.contains("damaged")));
    map = Map::with(&[]);
    map.values.insert(keys::params(), Value::from_static(b"?"));
    assert!(matches!(map.call(request()).unwrap_err(), QueryError::Unavailable(_)));
}

#[test]
fn an_access_list_has_what_is_touched_beside_sender_and_target() {
    let other = Address::repeat_byte(3);
    let code = Code::new()
        .push(7)
        .ops(&[SLOAD, POP])
        .push_address(other)
        .ops(&[BALANCE, POP])
        .push_address(RICH)
        .ops(&[BALANCE, POP])
        .push(4)
        .ops(&[EXTCODESIZE, STOP]);
    let mut map = Map::with(&[(CONTRACT, code)]);
    let answer = map.task(Task::AccessList(Box::new(request()))).unwrap();
    let Answer::AccessList(result) = answer else { panic!() };
    let item = |address, keys: &[u8]| AccessListItem {
        address,
        storage_keys: keys.iter().map(|key| B256::with_last_byte(*key)).collect(),
    };
    let list = AccessList(vec![item(other, &[]), item(CONTRACT, &[7])]);
    assert_eq!((result.access_list, result.error), (list.clone(), None));
    // What it used is what it uses with that list.
    let used = map.call(request().access_list(list)).unwrap().gas_used;
    assert_eq!(result.gas_used, U256::from(used));

    let mut map = Map::with(&[(CONTRACT, refuses())]);
    let answer = map.task(Task::AccessList(Box::new(request()))).unwrap();
    let Answer::AccessList(result) = answer else { panic!() };
    assert_eq!(result.error.as_deref(), Some("execution reverted"));
}

#[test]
fn an_access_list_that_never_settles_is_given_up() {
    // It loads the slot that is named like the gas it has left.
    let mut map = Map::with(&[(CONTRACT, Code::new().ops(&[GAS, SLOAD, STOP]))]);
    let error = map.task(Task::AccessList(Box::new(request()))).unwrap_err();
    assert!(matches!(error, QueryError::Unsupported(_)), "{error:?}");
}

#[test]
fn transactions_before_a_call_are_executed_first() {
    let mut wallet = Wallet::new(1);
    let code = Code::new().push_address(wallet.address).ops(&[BALANCE]).give_back().build();
    let balance = U256::from(2 * MILLION);
    let mut map = Map::new(
        &ChainParams::new(CHAIN),
        &BTreeMap::from([
            (wallet.address, GenesisAccount { balance, ..GenesisAccount::default() }),
            (CONTRACT, GenesisAccount { code, ..GenesisAccount::default() }),
        ]),
    );
    let raw = wallet.legacy(TxKind::Call(POOR), 5, Vec::new());
    let mut simulation = simulation(Task::Call(Box::new(request())));
    simulation.environment.base_fee = 0;
    simulation.before = vec![Recorded { sender: wallet.address, raw: raw.clone().into() }];
    let Answer::Call(result) = map.answer(simulation.clone()).unwrap() else { panic!() };
    assert_eq!(word(&result.output), U256::from(2 * MILLION - 21_000 - 5));
    // A second time its nonce is too low.
    simulation.before.push(Recorded { sender: wallet.address, raw: raw.into() });
    let error = map.answer(simulation).unwrap_err();
    assert!(
        matches!(&error, QueryError::Invalid(reason) if reason.contains("nonce too low")),
        "{error:?}"
    );
}
