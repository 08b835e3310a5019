//! Go-ethereum's own tests of its tracers: a state, a transaction, and what the tracer says.

use std::path::{Path, PathBuf};

use alloy_primitives::{U256, hex};
use parsec_ethereum::{Answer, Environment, Query, Recorded, Simulation, Task, Traced};
use revm::primitives::hardfork::SpecId;
use serde_json::{Value as Json, json};

use super::*;
use crate::evm::payload;
use crate::evm::simulate::answer;

/// Where the tests are, if they are on this machine: they are not part of the project.
fn data() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/geth-tracers");
    path.exists().then_some(path)
}

#[test]
fn tracers_say_what_geth_says() {
    let Some(data) = data() else {
        eprintln!("skipped: geth's tests of tracers are not on this machine");
        return;
    };
    let mut count = 0;
    let mut wrong = Vec::new();
    for (folder, tracer) in [
        ("call_tracer", "callTracer"),
        ("call_tracer_withLog", "callTracer"),
        ("prestate_tracer", "prestateTracer"),
        ("prestate_tracer_with_diff_mode", "prestateTracer"),
    ] {
        let mut files: Vec<_> = std::fs::read_dir(data.join(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let test: Json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let (found, expected) = (trace(&test, tracer), &test["result"]);
            count += 1;
            let mut differences = Vec::new();
            compare("", &found, expected, &mut differences);
            let name = file.strip_prefix(&data).unwrap().display();
            let differences = differences.iter().map(|difference| format!("{name}{difference}"));
            wrong.extend(differences);
        }
    }
    wrong.retain(|it| !EXPLAINED.iter().any(|known| it.starts_with(&format!("{known}:"))));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(count, 26);
}

/// Where an answer differs, and why that is right.
const EXPLAINED: [&str; 1] = [
    // Before Homestead, a creation that can't pay for its code succeeds without code; revm forgets
    // what the code would have been, geth shows it.
    "call_tracer_withLog/frontier_create_outofstorage.json/output",
];

/// Lists where two values differ.
fn compare(path: &str, found: &Json, expected: &Json, differences: &mut Vec<String>) {
    match (found, expected) {
        (Json::Object(a), Json::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                compare(&format!("{path}/{key}"), &found[key], &expected[key], differences);
            }
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}/{index}"), a, b, differences);
            }
        }
        (a, b) if a == b => {}
        // The older of these files leave out an index that is zero.
        (Json::String(index), Json::Null) if path.ends_with("/index") && index == "0x0" => {}
        (a, b) => differences.push(format!("{path}: {a:.200} instead of {b:.200}")),
    }
}

/// What our tracer says of the transaction of a test.
fn trace(test: &Json, tracer: &str) -> Json {
    let (genesis, context) = (&test["genesis"], &test["context"]);
    let config = &genesis["config"];
    let chain_id = number(&config["chainId"]).unwrap();
    let mut environment = environment(context);
    environment.excess_blob_gas = number(&genesis["excessBlobGas"]);
    let fork = fork(config, &environment);
    let params = ChainParams { fork: fork.to_owned(), ..ChainParams::new(chain_id) };
    let mut map = Map::new(&params, &accounts(&genesis["alloc"]));

    let raw = hex::decode(test["input"].as_str().unwrap()).unwrap();
    let sender = payload::signer(&payload::decode(&raw).unwrap(), true).unwrap();
    let mut options = json!({ "tracer": tracer });
    if !test["tracerConfig"].is_null() {
        options["tracerConfig"] = test["tracerConfig"].clone();
    }
    let what = Traced::Recorded(Recorded { sender, raw: raw.into() });
    let task = Task::Trace { what, options: serde_json::from_value(options).unwrap() };
    let simulation =
        Simulation { environment, overrides: Default::default(), before: Vec::new(), task };
    match answer(chain_id, &mut map, &Query::Simulate(Box::new(simulation))).unwrap() {
        Answer::Traces(traces) => {
            let json = traces[0].outcome.as_ref().unwrap().get();
            let mut deep = serde_json::Deserializer::from_str(json);
            serde::Deserialize::deserialize(&mut deep).unwrap()
        }
        answer => panic!("{answer:?}"),
    }
}

fn number(json: &Json) -> Option<u64> {
    word(json).map(|word| word.to())
}

fn word(json: &Json) -> Option<U256> {
    match json {
        Json::Number(number) => number.as_u64().map(U256::from),
        Json::String(text) => Some(text.parse().unwrap()),
        _ => None,
    }
}

fn environment(context: &Json) -> Environment {
    Environment {
        number: number(&context["number"]).unwrap(),
        timestamp: number(&context["timestamp"]).unwrap(),
        gas_limit: number(&context["gasLimit"]).unwrap(),
        base_fee: number(&context["baseFeePerGas"]).unwrap_or_default(),
        coinbase: context["miner"].as_str().unwrap().parse().unwrap(),
        difficulty: word(&context["difficulty"]).unwrap(),
        ..Environment::default()
    }
}

/// The fork that a block has by the schedule of its chain.
fn fork(config: &Json, environment: &Environment) -> &'static str {
    let reached = |name: &str, now: u64| number(&config[name]).is_some_and(|from| from <= now);
    let merged = environment.difficulty.is_zero();
    let spec = [
        (SpecId::PRAGUE, merged && reached("pragueTime", environment.timestamp)),
        (SpecId::CANCUN, merged && reached("cancunTime", environment.timestamp)),
        (SpecId::SHANGHAI, merged && reached("shanghaiTime", environment.timestamp)),
        (SpecId::MERGE, merged),
        (SpecId::LONDON, reached("londonBlock", environment.number)),
        (SpecId::BERLIN, reached("berlinBlock", environment.number)),
        (SpecId::ISTANBUL, reached("istanbulBlock", environment.number)),
        // Go takes names in any case.
        (SpecId::ISTANBUL, reached("IstanbulBlock", environment.number)),
        (SpecId::PETERSBURG, reached("petersburgBlock", environment.number)),
        (SpecId::BYZANTIUM, reached("byzantiumBlock", environment.number)),
        (SpecId::SPURIOUS_DRAGON, reached("eip158Block", environment.number)),
        (SpecId::TANGERINE, reached("eip150Block", environment.number)),
        (SpecId::HOMESTEAD, reached("homesteadBlock", environment.number)),
    ];
    let spec = spec.into_iter().find(|(_, reached)| *reached);
    spec.map_or(SpecId::FRONTIER, |(spec, _)| spec).into()
}

fn accounts(alloc: &Json) -> BTreeMap<Address, GenesisAccount> {
    let account = |json: &Json| GenesisAccount {
        balance: word(&json["balance"]).unwrap_or_default(),
        nonce: number(&json["nonce"]).unwrap_or_default(),
        code: json["code"].as_str().map_or_else(Default::default, |code| code.parse().unwrap()),
        storage: json["storage"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(slot, value)| (slot.parse().unwrap(), word(value).unwrap()))
            .collect(),
    };
    let alloc = alloc.as_object().unwrap();
    alloc.iter().map(|(address, json)| (address.parse().unwrap(), account(json))).collect()
}
