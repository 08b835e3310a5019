use super::super::smallbank::{Account, Call, checking, savings};
use super::*;

const BANK: u64 = 3;

fn bank(balances: &[(i64, i64)]) -> Host {
    let mut host = host();
    for ((saved, checked), customer) in balances.iter().zip(0..) {
        let row = |balance| Account { balance, inflow: 0, writes: 0 }.encode();
        host.state.insert(savings(BANK, customer), row(*saved));
        host.state.insert(checking(BANK, customer), row(*checked));
    }
    host
}

fn call(call: Call) -> Invocation {
    Invocation::SmallBank { bank: BANK, call }
}

fn accounts(host: &Host, customer: u64) -> [Account; 2] {
    [savings(BANK, customer), checking(BANK, customer)]
        .map(|key| Account::decode(&host.state[&key]).unwrap())
}

fn balances(host: &Host, customer: u64) -> [i64; 2] {
    accounts(host, customer).map(|account| account.balance)
}

#[test]
fn each_procedure_does_what_it_says() {
    let mut host = bank(&[(100, 20), (5, 1)]);
    let sum = committed(&mut host, call(Call::Balance { customer: 0 }));
    assert_eq!(&sum[..], 120i64.to_be_bytes());
    committed(&mut host, call(Call::DepositChecking { customer: 0, amount: 7 }));
    committed(&mut host, call(Call::TransactSavings { customer: 0, amount: -40 }));
    assert_eq!(balances(&host, 0), [60, 27]);
    committed(&mut host, call(Call::SendPayment { from: 0, to: 1, amount: 27 }));
    assert_eq!((balances(&host, 0), balances(&host, 1)), ([60, 0], [5, 28]));
    committed(&mut host, call(Call::Amalgamate { from: 1, to: 0 }));
    assert_eq!((balances(&host, 0), balances(&host, 1)), ([60, 33], [0, 0]));
    let [savings, checking] = accounts(&host, 0);
    assert_eq!((savings.inflow, checking.inflow), (-40, 7));
    assert_eq!((savings.writes, checking.writes), (1, 3));
}

#[test]
fn a_check_beyond_both_accounts_costs_one_more() {
    let mut host = bank(&[(10, 5)]);
    committed(&mut host, call(Call::WriteCheck { customer: 0, amount: 15 }));
    assert_eq!(balances(&host, 0), [10, -10]);
    committed(&mut host, call(Call::WriteCheck { customer: 0, amount: 1 }));
    assert_eq!(balances(&host, 0), [10, -12]);
    assert_eq!(accounts(&host, 0)[1].inflow, -17);
}

#[test]
fn what_lacks_funds_or_an_account_is_refused() {
    let mut host = bank(&[(10, 5), (0, i64::MAX)]);
    let mut no = |refused_call| refused(&mut host, call(refused_call));
    let funds = ErrorCode::InsufficientFunds;
    assert_eq!(no(Call::SendPayment { from: 0, to: 1, amount: 6 }), funds);
    assert_eq!(no(Call::TransactSavings { customer: 0, amount: -11 }), funds);
    assert_eq!(no(Call::SendPayment { from: 0, to: 1, amount: 5 }), ErrorCode::Overflow);
    assert_eq!(no(Call::DepositChecking { customer: 1, amount: 1 }), ErrorCode::Overflow);
    assert_eq!(no(Call::Balance { customer: 2 }), ErrorCode::Refused);
    assert_eq!(no(Call::Amalgamate { from: 0, to: 2 }), ErrorCode::Refused);
    host.state.insert(checking(BANK, 0), Value::from_static(b"no account"));
    assert_eq!(refused(&mut host, call(Call::Balance { customer: 0 })), ErrorCode::Refused);
}

#[test]
fn nobody_pays_itself() {
    assert!(malformed(call(Call::SendPayment { from: 1, to: 1, amount: 1 })).contains("itself"));
    assert!(malformed(call(Call::Amalgamate { from: 1, to: 1 })).contains("itself"));
}

#[test]
fn accounts_of_a_customer_share_a_placement() {
    for customer in 0..100 {
        assert_eq!(savings(BANK, customer).slot(), checking(BANK, customer).slot());
    }
}
