//! `eth_config`: the rules now and to come, as EIP-7910 has them.

use alloy_eips::eip2124::ForkHash;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, B256, Bytes, U64, address};
use parsec_gateway::RpcError;
use parsec_runtimes::evm::verify::ChainSpec;
use parsec_runtimes::evm::{Fork, ForkAt};
use revm::primitives::hardfork::SpecId;
use serde_json::{Map, Value, json};

use crate::backend::DevBackend;
use crate::chain::DevChain;

/// Where P256VERIFY stands, out of the row of the others.
const P256VERIFY: Address = address!("0000000000000000000000000000000000000100");

/// The precompiled contracts that each fork brought, from address 1 on.
const PRECOMPILES: [(SpecId, &[&str]); 5] = [
    (SpecId::FRONTIER, &["ECREC", "SHA256", "RIPEMD160", "ID"]),
    (SpecId::BYZANTIUM, &["MODEXP", "BN254_ADD", "BN254_MUL", "BN254_PAIRING"]),
    (SpecId::ISTANBUL, &["BLAKE2F"]),
    (SpecId::CANCUN, &["KZG_POINT_EVALUATION"]),
    (
        SpecId::PRAGUE,
        &[
            "BLS12_G1ADD",
            "BLS12_G1MSM",
            "BLS12_G2ADD",
            "BLS12_G2MSM",
            "BLS12_PAIRING_CHECK",
            "BLS12_MAP_FP_TO_G1",
            "BLS12_MAP_FP2_TO_G2",
        ],
    ),
];

pub(super) fn add(family: &mut super::Family) {
    family.act(&["eth_config"], async |backend: DevBackend, ()| backend.look(config));
}

/// A fork that begins at a time.
struct Timed {
    begins: u64,
    fork: Fork,
}

fn config(chain: &DevChain) -> Result<Value, RpcError> {
    let spec = chain.spec();
    let genesis = chain.block_hash(0).unwrap_or_default();
    let mut timed = vec![Timed { begins: 0, fork: spec.first }];
    timed.extend(spec.later.iter().filter_map(|(at, fork)| match at {
        ForkAt::Time(begins) => Some(Timed { begins: *begins, fork: *fork }),
        ForkAt::Block(_) => None,
    }));
    // Blocks made after an import keep the rules that the chain had by then.
    let now = timed.iter().rposition(|timed| timed.fork <= *chain.fork()).unwrap_or(0);
    if timed[now].fork.blobs.is_none() {
        return Err(RpcError::server("the rules have no blobs yet, of which this method tells"));
    }
    let shown = |timed: &Timed| show(&spec, genesis, timed);
    let next = timed.get(now + 1);
    Ok(json!({
        "current": shown(&timed[now]),
        "next": next.map(shown),
        "last": timed.last().filter(|_| next.is_some()).map(shown),
    }))
}

fn show(spec: &ChainSpec, genesis: B256, timed: &Timed) -> Value {
    let blobs = timed.fork.blobs.map(|blobs| {
        json!({
            "target": blobs.target_blob_count,
            "max": blobs.max_blob_count,
            "baseFeeUpdateFraction": u64::try_from(blobs.update_fraction).unwrap_or(u64::MAX),
        })
    });
    json!({
        "activationTime": timed.begins,
        "blobSchedule": blobs,
        "chainId": U64::from(spec.chain_id),
        "forkId": Bytes::from(fork_id(spec, genesis, timed.begins).0),
        "precompiles": precompiles(timed.fork.spec),
        "systemContracts": system_contracts(timed.fork.spec, spec.deposit_contract),
    })
}

/// The id of the rules that hold from a time on: of the genesis and all points before (EIP-6122).
fn fork_id(spec: &ChainSpec, genesis: B256, time: u64) -> ForkHash {
    let points = spec.points.0.iter().chain(spec.points.1.iter().filter(|point| **point <= time));
    points.fold(ForkHash::from(genesis), |hash, point| hash + *point)
}

fn precompiles(spec: SpecId) -> Map<String, Value> {
    let begun = PRECOMPILES.iter().filter(|(first, _)| spec.is_enabled_in(*first));
    let names = begun.flat_map(|(_, names)| names.iter());
    let mut all: Map<String, Value> = (1_u8..)
        .zip(names)
        .map(|(number, name)| ((*name).to_owned(), json!(Address::with_last_byte(number))))
        .collect();
    if spec.is_enabled_in(SpecId::OSAKA) {
        all.insert("P256VERIFY".to_owned(), json!(P256VERIFY));
    }
    all
}

fn system_contracts(spec: SpecId, deposits: Address) -> Map<String, Value> {
    let contracts = [
        (SpecId::CANCUN, "BEACON_ROOTS", eip4788::BEACON_ROOTS_ADDRESS),
        (
            SpecId::PRAGUE,
            "CONSOLIDATION_REQUEST_PREDEPLOY",
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
        ),
        (SpecId::PRAGUE, "DEPOSIT_CONTRACT", deposits),
        (SpecId::PRAGUE, "HISTORY_STORAGE", eip2935::HISTORY_STORAGE_ADDRESS),
        (
            SpecId::PRAGUE,
            "WITHDRAWAL_REQUEST_PREDEPLOY",
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
        ),
    ];
    let begun = contracts.into_iter().filter(|(first, ..)| spec.is_enabled_in(*first));
    begun.map(|(_, name, address)| (format!("{name}_ADDRESS"), json!(address))).collect()
}
