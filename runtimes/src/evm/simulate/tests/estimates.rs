//! The least gas.

use super::*;

fn estimate(map: &mut Map, request: &TransactionRequest) -> Result<u64, QueryError> {
    match map.task(Task::Estimate(Box::new(request.clone())))? {
        Answer::Gas(gas) => Ok(gas),
        answer => panic!("{answer:?}"),
    }
}

/// Makes sure that a call needs exactly what is estimated.
fn check(map: &mut Map, request: &TransactionRequest) -> u64 {
    let gas = estimate(map, request).unwrap();
    let result = map.call(request.clone().gas_limit(gas)).unwrap();
    assert_eq!(result.failure, None);
    let less = map.call(request.clone().gas_limit(gas - 1));
    assert!(less.is_err() || less.unwrap().failure.is_some(), "{gas} is too much");
    gas
}

#[test]
fn a_transfer_needs_what_every_transaction_does() {
    let mut map = Map::with(&[]);
    let transfer = request().to(POOR).value(U256::from(5));
    assert_eq!(check(&mut map, &transfer), 21_000);
    let listed = transfer.access_list(alloy_rpc_types_eth::AccessList(vec![Default::default()]));
    assert_eq!(check(&mut map, &listed), 23_400);
}

#[test]
fn an_estimate_is_the_least_gas_with_refunds_calls_and_data() {
    let inner = Address::repeat_byte(3);
    let outer = Code::new()
        .push(0)
        .push(0)
        .push(0)
        .push(0)
        .push(0)
        .push_address(inner)
        .ops(&[GAS, CALL])
        // What the inner call runs out of is the outer one's failure.
        .push(47)
        .ops(&[JUMPI, INVALID]);
    let length = outer.clone().build().len();
    let outer = outer.ops(&vec![JUMPDEST; 48 - length]).ops(&[STOP]);
    let store = Code::new().push(5).store(1).push(6).store(2).ops(&[STOP]);
    // Sets slots and clears them again, which refunds.
    let clear = Code::new().push(5).store(1).push(0).store(1).ops(&[STOP]);
    let hash = Code::new().push(20_000).push(0).ops(&[KECCAK256, STOP]);
    for code in [store.clone(), clear, hash] {
        let mut map = Map::with(&[(CONTRACT, code)]);
        check(&mut map, &request());
    }
    let mut map = Map::with(&[(CONTRACT, outer), (inner, store)]);
    let gas = check(&mut map, &request());
    let used = map.call(request()).unwrap().gas_used;
    assert!(gas > used, "a 64th stays with the caller");
    let mut data = request();
    data.input = alloy_rpc_types_eth::TransactionInput::new(vec![7; 5_000].into());
    check(&mut map, &data);
}

#[test]
fn what_always_fails_has_no_estimate() {
    let mut map = Map::with(&[(CONTRACT, refuses())]);
    assert_eq!(estimate(&mut map, &request()), Err(QueryError::Reverted(revert_data())));
    map = Map::with(&[(CONTRACT, Code::new().ops(&[INVALID]))]);
    let halted = QueryError::Halted("invalid opcode: INVALID".to_owned());
    assert_eq!(estimate(&mut map, &request()), Err(halted));
    map = Map::with(&[(CONTRACT, Code::new().ops(&[JUMPDEST]).push(0).ops(&[JUMP]))]);
    let exceeds =
        |gas: u64| Err(QueryError::Invalid(format!("gas required exceeds allowance ({gas})")));
    assert_eq!(estimate(&mut map, &request()), exceeds(16_777_216));
    assert_eq!(estimate(&mut map, &request().gas_limit(60_000)), exceeds(60_000));
    // With a price, the balance is what allows: a million for 20 each.
    assert_eq!(estimate(&mut map, &request().gas_price(20)), exceeds(50_000));
    assert_eq!(estimate(&mut map, &request().gas_price(50)), exceeds(20_000));
    let all = request().gas_price(20).value(U256::from(MILLION));
    let poor = QueryError::Invalid("insufficient funds for transfer".to_owned());
    assert_eq!(estimate(&mut map, &all), Err(poor));
    let more = request().value(U256::from(MILLION + 1));
    let error = estimate(&mut map, &more).unwrap_err().to_string();
    assert!(error.starts_with("failed with 16777216 gas: insufficient funds for gas"), "{error}");
}

#[test]
fn a_creation_needs_what_it_deploys() {
    let mut map = Map::with(&[]);
    let mut creation = TransactionRequest { from: Some(RICH), ..TransactionRequest::default() };
    let code = Code::new().ops(&[STOP; 600]).deployer();
    creation.input = alloy_rpc_types_eth::TransactionInput::new(code);
    assert!(check(&mut map, &creation) > 53_000 + 600 * 200);
}
