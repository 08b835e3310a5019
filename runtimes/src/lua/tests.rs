mod behaviour;
mod hostile;
mod isolation;
mod payments;

use parsec_protocol::Receipt;

use super::*;
use crate::testing::Host;

/// A host with the contract deployed, and the contract's id.
fn deployed(source: &str) -> (Host, [u8; 32]) {
    let mut host = Host::new(LuaRuntime::new());
    let receipt = host.submit(&LuaCall::deploy(source.to_owned()).into_transaction(0)).unwrap();
    let text = String::from_utf8_lossy(&receipt.output).into_owned();
    assert!(receipt.is_committed(), "{:?} {text}\n{source}", receipt.outcome);
    assert_eq!(receipt.output, contract_id(source.as_bytes())[..]);
    (host, contract_id(source.as_bytes()))
}

fn invoke(host: &mut Host, contract: [u8; 32], function: &str, arguments: &[LuaValue]) -> Receipt {
    let call = LuaCall::invoke(contract, function, arguments);
    host.submit(&call.into_transaction(1)).unwrap()
}

/// A contract whose function `main` is `body`.
fn contract(body: &str) -> String {
    format!("return {{ main = function(...) {body}\nend }}")
}

/// Runs `body` as a function, with the most work there is.
fn run_with(body: &str, limit: u64) -> Receipt {
    let (mut host, contract) = deployed(&contract(body));
    let call = LuaCall::Invoke { contract, function: "main".into(), arguments: Vec::new(), limit };
    host.submit(&call.into_transaction(1)).unwrap()
}

fn run(body: &str) -> Receipt {
    run_with(body, WORK_DEFAULT)
}

fn values(receipt: &Receipt) -> Vec<LuaValue> {
    let text = String::from_utf8_lossy(&receipt.output);
    assert_eq!(receipt.outcome, Outcome::Committed, "{text}");
    Returned::decode(&receipt.output).unwrap().values
}

fn text(receipt: &Receipt) -> String {
    String::from_utf8(receipt.output.to_vec()).unwrap()
}

fn ints(receipt: &Receipt) -> Vec<i64> {
    let int = |value: &LuaValue| match value {
        LuaValue::Int(int) => *int,
        other => panic!("{other:?} is no integer"),
    };
    values(receipt).iter().map(int).collect()
}

const OUT_OF_WORK: Outcome = Outcome::Reverted(ErrorCode::OutOfWork);
const OUT_OF_MEMORY: Outcome = Outcome::Reverted(ErrorCode::OutOfMemory);
const REFUSED: Outcome = Outcome::Reverted(ErrorCode::Refused);
