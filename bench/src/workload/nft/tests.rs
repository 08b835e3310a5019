use super::*;
use crate::draw::Skew;
use crate::testing::{CHAIN_ID, Host, values};

fn collection() -> Nft {
    let skew = Skew::Zipf { exponent: 0.99 };
    let accounts = PaymentOptions { seed: 3, accounts: 12, skew, conflict: 0 };
    Nft::new(NftOptions { accounts, chain_id: CHAIN_ID }).unwrap()
}

fn ran(count: usize) -> (Nft, Host) {
    let mut workload = collection();
    let mut host = Host::new();
    host.set_up(&workload);
    for load in workload.build(count, &|_| {}) {
        let receipt = host.execute(&load.transaction);
        assert!(receipt.is_committed(), "{receipt:?}");
    }
    (workload, host)
}

#[test]
fn all_mints_commit_and_the_audit_is_exact() {
    let (workload, host) = ran(150);
    let audit = workload.audit();
    assert!(audit.needs_commits());
    let found = values(&host, &audit);
    audit.check(&found, Commits::All).unwrap();
    audit.check(&found, Commits::ANY).unwrap();
    audit.check(&found, Commits::Between { least: 149, most: 151 }).unwrap();
    for (least, most) in [(0, 149), (151, 200)] {
        let failure = audit.check(&found, Commits::Between { least, most }).unwrap_err();
        assert!(failure.to_string().contains("counter"), "{failure}");
    }
}

#[test]
fn the_audit_finds_what_is_wrong() {
    let (workload, host) = ran(50);
    let audit = workload.audit();
    let sound = values(&host, &audit);
    let with = |index: usize, value: Option<Vec<u8>>| {
        let mut values = sound.clone();
        values[index] = value.map(Value::from);
        audit.check(&values, Commits::ANY).unwrap_err().to_string()
    };
    let first_owner = 1 + 12;
    assert!(with(0, Some(vec![49])).contains("not minted"));
    assert!(with(0, Some(vec![51])).contains("counter"));
    assert!(with(1, Some(vec![50])).contains("everyone has"));
    assert!(with(1, Some(vec![0])).contains("everyone has"));
    assert!(with(first_owner, None).contains("has none"));
    assert!(with(first_owner, Some(vec![7; 20])).contains("never mints"));
    let other = sound[first_owner..]
        .iter()
        .flatten()
        .find(|owner| Some(*owner) != sound[first_owner].as_ref());
    assert!(with(first_owner, other.map(|owner| owner.to_vec())).contains("as many"));
    assert!(with(first_owner + 50, Some(vec![7; 20])).contains("not minted"));
}
