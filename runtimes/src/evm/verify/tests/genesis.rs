//! Genesis files.

use serde_json::{Value as Json, json};

use super::*;
use crate::evm::{Fork, ForkAt};

fn file(config: &Json) -> Json {
    json!({
        "config": config,
        "gasLimit": "0x1c9c380",
        "difficulty": 1,
        "timestamp": "0x10",
        "alloc": {
            "00000000000000000000000000000000000000aa": { "balance": "1000" },
            "0x00000000000000000000000000000000000000bb": {
                "balance": "0x5", "nonce": "0x1", "code": "0x6001", "storage": { "0x0": "0x7" },
            },
        },
    })
}

fn read(config: &Json) -> Result<Genesis, GenesisError> {
    Genesis::read(file(config).to_string().as_bytes())
}

fn names(spec: &ChainSpec) -> (&str, Vec<(ForkAt, &str)>) {
    (spec.first.name(), spec.later.iter().map(|(at, fork)| (*at, fork.name())).collect())
}

#[test]
fn forks_begin_where_the_configuration_says() {
    let genesis = read(&json!({
        "chainId": 7, "homesteadBlock": 0, "eip150Block": 0, "eip158Block": 0,
        "byzantiumBlock": 0, "constantinopleBlock": 4, "petersburgBlock": 4, "istanbulBlock": 9,
        "terminalTotalDifficulty": 1_000, "shanghaiTime": 500, "daoForkSupport": false,
    }));
    let Genesis { mut spec, accounts, .. } = genesis.unwrap();
    let (block, time) = (ForkAt::Block, ForkAt::Time);
    let later = vec![(block(4), "Petersburg"), (block(9), "Istanbul"), (time(500), "Shanghai")];
    assert_eq!(names(&spec), ("Byzantium", later));
    assert_eq!((spec.chain_id, accounts.len()), (7, 2));
    assert_eq!(spec.points, (vec![4, 9], vec![500]));
    spec.merge_at(12);
    let merge = (block(12), "Merge");
    assert_eq!(names(&spec).1[2], merge);
    assert_eq!(spec.fork_at(12, 499).name(), "Merge");
    assert_eq!(spec.fork_at(11, 500).name(), "Shanghai");
}

#[test]
fn a_chain_may_begin_with_the_latest_rules_and_blobs_of_its_own() {
    let blobs = json!({ "target": 1, "max": 2, "baseFeeUpdateFraction": 3 });
    let genesis = read(&json!({
        "chainId": 7, "homesteadBlock": 0, "londonBlock": 0, "terminalTotalDifficulty": 0,
        "shanghaiTime": 0, "cancunTime": 16, "pragueTime": 17,
        "blobSchedule": { "cancun": blobs },
    }));
    let Genesis { spec, header, .. } = genesis.unwrap();
    assert_eq!(names(&spec), ("Cancun", vec![(ForkAt::Time(17), "Prague")]));
    let blobs = spec.first.blobs.unwrap();
    assert_eq!((blobs.max_blob_count, blobs.update_fraction), (2, 3));
    assert_eq!(header.base_fee_per_gas, Some(1_000_000_000));
    assert_eq!(header.excess_blob_gas, Some(0));
    assert_eq!(header.requests_hash, None);
    let later = spec.later[0].1;
    assert_eq!(later, Fork::named("Prague").unwrap());
}

#[test]
fn what_is_not_there_is_refused_by_its_name() {
    for (name, value) in [
        ("amsterdamTime", json!(9)),
        ("daoForkBlock", json!(1)),
        ("clique", json!({ "period": 15 })),
        ("chainId", json!("seven")),
        ("shanghaiTime", json!(-1)),
    ] {
        let error = read(&json!({ name: value })).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(matches!(Genesis::read(b"{}"), Err(GenesisError::Json { .. })));
    let mut bad = file(&json!({}));
    bad["alloc"]["0x1"] = json!({});
    let error = Genesis::read(bad.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("no address"), "{error}");
}

#[test]
fn a_genesis_with_another_state_is_refused() {
    let Genesis { spec, accounts, mut header } = read(&json!({ "chainId": 7 })).unwrap();
    header.state_root.0[5] ^= 1;
    let refused = Verifier::new(spec.clone(), &accounts, header.clone(), true);
    assert!(matches!(refused.err().unwrap().reason, Reason::Result { field: "state root", .. }));
    assert!(Verifier::new(spec, &accounts, header, false).is_ok());
}
