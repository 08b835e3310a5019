use super::*;
use crate::draw::Skew;
use crate::testing::{CHAIN_ID, Host, values};

fn options(pools: u32) -> SwapOptions {
    let skew = Skew::Zipf { exponent: 0.99 };
    let accounts = PaymentOptions { seed: 3, accounts: 12, skew, conflict: 0 };
    SwapOptions { accounts, pools, chain_id: CHAIN_ID, declared: false }
}

fn ran(options: SwapOptions, count: usize) -> (Swap, Host) {
    let mut workload = Swap::new(options).unwrap();
    let mut host = Host::new();
    host.set_up(&workload);
    for load in workload.build(count, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        assert!(receipt.is_committed() && receipt.work < 100_000, "{receipt:?}");
    }
    (workload, host)
}

#[test]
fn all_swaps_commit_and_the_audit_holds() {
    for pools in [1, 3] {
        let (workload, host) = ran(options(pools), 200);
        let audit = workload.audit();
        audit.check(&values(&host, &audit), Commits::All).unwrap();
        audit.check(&values(&host, &audit), Commits::ANY).unwrap();
        let before = Swap::new(options(pools)).unwrap().audit();
        let missed = before.check(&values(&host, &before), Commits::All).unwrap_err();
        assert!(missed.to_string().contains("all swaps"), "{missed}");
    }
}

/// A swap that is declared is held to what it declares: the host fails if one strays.
#[test]
fn declared_footprints_are_what_is_touched() {
    let (mut workload, mut host) = ran(SwapOptions { declared: true, ..options(3) }, 60);
    for LoadTransaction { mut transaction, .. } in workload.build(20, &|_| {}) {
        let declared = transaction.footprint.take();
        assert_eq!(declared, Some(host.footprint(&transaction)));
        assert!(host.execute(&transaction).is_committed());
    }
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let (workload, host) = ran(options(1), 50);
    let audit = workload.audit();
    let sound = values(&host, &audit);
    let with = |changes: &[(usize, U256)]| {
        let mut values = sound.clone();
        for (index, word) in changes {
            values[*index] = Some(Value::from(word.to_be_bytes_trimmed_vec()));
        }
        audit.check(&values, Commits::ANY).unwrap_err().to_string()
    };
    let now = |index: usize| word(sound[index].as_ref());
    let one = U256::ONE;
    assert!(with(&[(2, now(2) + one)]).contains("neither made nor lost"));
    assert!(with(&[(0, now(0) + one)]).contains("reserves are what the pool has"));
    // Someone took much of one token, and gave nothing for it.
    let much = U256::from(1u64 << 40);
    let taken = with(&[(0, now(0) - much), (1, now(1) - much), (2, now(2) + much)]);
    assert!(taken.contains("product"), "{taken}");
}

#[test]
fn pools_have_equally_many_accounts() {
    let refused = |pools| Swap::new(options(pools)).unwrap_err();
    assert!(matches!(refused(0), BadWorkload::Value { knob: "tokens", .. }));
    assert!(matches!(refused(5), BadWorkload::Value { knob: "tokens", .. }));
}
