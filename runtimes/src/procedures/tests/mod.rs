use parsec_protocol::Receipt;
use parsec_protocol::transaction::Entry;

use super::*;
use crate::testing::Host;

mod hostile;
mod smallbank;
mod tpcc;
mod ycsb;

fn host() -> Host {
    Host::new(ProcedureRuntime)
}

fn entry(host: &mut Host, invocation: Invocation) -> Entry {
    host.admit(&invocation.into_transaction(0)).unwrap()
}

fn run(host: &mut Host, invocation: Invocation) -> Receipt {
    let entry = entry(host, invocation);
    host.execute(&entry)
}

fn committed(host: &mut Host, invocation: Invocation) -> Value {
    let receipt = run(host, invocation);
    assert_eq!(receipt.outcome, Outcome::Committed);
    receipt.output
}

/// A call that says no changes nothing.
fn refused(host: &mut Host, invocation: Invocation) -> ErrorCode {
    let before = host.state.clone();
    let receipt = run(host, invocation);
    assert_eq!(host.state, before);
    match receipt.outcome {
        Outcome::Reverted(code) => code,
        outcome => panic!("{outcome:?}"),
    }
}

/// Why admission refuses a call.
fn malformed(invocation: Invocation) -> String {
    let payload = invocation.into_transaction(0);
    let rejection = ProcedureRuntime.admit(&payload).unwrap_err();
    assert_eq!(rejection.code, ErrorCode::Malformed);
    rejection.detail
}
