use parsec_protocol::Outcome;

use super::*;
use crate::draw::Skew;
use crate::testing::{Host, values};

fn bank(skew: Skew) -> SmallBank {
    let customers = PaymentOptions { seed: 5, accounts: 40, skew, conflict: 0 };
    SmallBank::new(SmallBankOptions { customers, ..SmallBankOptions::default() }, None).unwrap()
}

fn ran(workload: &mut SmallBank, count: usize) -> (Host, u64) {
    let mut host = Host::new();
    host.set_up(workload);
    let mut committed = 0;
    for load in workload.build(count, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        match receipt.outcome {
            Outcome::Committed => committed += 1,
            Outcome::Reverted(ErrorCode::InsufficientFunds) => {}
            _ => panic!("{receipt:?}"),
        }
    }
    (host, committed)
}

#[test]
fn without_amalgamations_of_the_same_all_commits_and_the_audit_is_exact() {
    let mut workload = bank(Skew::Uniform);
    let (host, committed) = ran(&mut workload, 25);
    assert_eq!(committed, 25);
    let audit = workload.audit();
    audit.check(&values(&host, &audit), Commits::All).unwrap();
}

#[test]
fn what_reverts_leaves_the_money_alone() {
    let mut workload = bank(Skew::Zipf { exponent: 1.2 });
    let (host, committed) = ran(&mut workload, 3_000);
    assert!((1..3_000).contains(&committed), "{committed}");
    let audit = workload.audit();
    audit.check(&values(&host, &audit), Commits::ANY).unwrap();
    let all = audit.check(&values(&host, &audit), Commits::All);
    assert!(matches!(all, Err(AuditFailure::Rule { .. })), "reverted calls wrote nothing");
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let mut workload = bank(Skew::Uniform);
    let (host, _) = ran(&mut workload, 25);
    let audit = workload.audit();
    let sound = values(&host, &audit);
    let change = |change: fn(&mut Account)| {
        let mut values = sound.clone();
        let mut account = Account::decode(values[3].as_ref().unwrap()).unwrap();
        change(&mut account);
        values[3] = Some(account.encode());
        audit.check(&values, Commits::ANY).unwrap_err().to_string()
    };
    assert!(change(|account| account.balance += 1).contains("money"));
    assert!(change(|account| account.inflow -= 1).contains("money"));
    assert!(change(|account| account.writes += 100).contains("written"));
    let mut lost = sound.clone();
    lost[0] = None;
    assert!(matches!(audit.check(&lost, Commits::ANY), Err(AuditFailure::NotABalance { .. })));
    // One update lost: the balance and how often it was written are those of before.
    let before = bank(Skew::Uniform).audit();
    assert!(before.check(&sound, Commits::ANY).is_err(), "more was written than was built");
}

#[test]
fn a_share_of_calls_only_reads() {
    let read_only = |percent| {
        let options = SmallBankOptions { read: Some(percent), ..bank(Skew::Uniform).options };
        let mut workload = SmallBank::new(options, None).unwrap();
        let calls = (0..1_000).map(|_| workload.next_call().1);
        calls.filter(|call| matches!(call, Call::Balance { .. })).count()
    };
    assert_eq!((read_only(0), read_only(100)), (0, 1_000));
    assert!((400..600).contains(&read_only(50)));
}
