//! `parsec submit`: submits one transaction and prints its receipt.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parsec_protocol::{EpochNumber, Outcome, Receipt, RuntimeId, Transaction};
use parsec_runtimes::lua::{LuaCall, LuaValue, Returned};
use parsec_runtimes::native::{self, Program};

use super::status::connect;
use crate::args::{ConnectArgs, SubmitCommand};
use crate::failure::{Context, Failure, failed};

/// Submits a transaction and prints its receipt.
///
/// # Errors
/// If it was refused, or did not commit.
pub async fn submit(
    args: &ConnectArgs,
    expires: Option<u64>,
    salt: Option<u128>,
    what: SubmitCommand,
) -> Result<(), Failure> {
    let mut transaction = build(&what, salt.unwrap_or_else(random_salt))?;
    transaction.expires = expires.map(EpochNumber);
    let client = connect(args).await?;
    let receipt = client.submit_one(transaction).await.map_err(failed)?;
    print(&receipt, &what);
    match &receipt.outcome {
        Outcome::Committed => Ok(()),
        Outcome::Reverted(code) | Outcome::Invalid(code) => Err(failed(code)),
        Outcome::Strayed { .. } => Err(failed("it strayed: a sequencer should not say so")),
    }
}

/// The seed of a map that the standard library makes: different in every process, and good enough
/// to tell two transactions apart.
fn random_salt() -> u128 {
    let half = |n: u8| u128::from(RandomState::new().hash_one(n));
    half(0) << 64 | half(1)
}

fn build(what: &SubmitCommand, salt: u128) -> Result<Transaction, Failure> {
    let key = |name: &String| native::key(name).map_err(failed);
    let program = match what {
        SubmitCommand::Evm { raw } => {
            let bytes = hex::decode(raw.trim_start_matches("0x")).context("not hex")?;
            return Ok(Transaction::new(RuntimeId::EVM, bytes));
        }
        SubmitCommand::Put { key: name, value } => {
            Program::new().put(&key(name)?, value.clone().into_bytes())
        }
        SubmitCommand::Get { key: name } => Program::new().get(&key(name)?),
        SubmitCommand::Add { key: name, amount } => Program::new().add(&key(name)?, *amount),
        SubmitCommand::Transfer { from, to, amount } => {
            Program::new().transfer(&key(from)?, &key(to)?, *amount)
        }
        SubmitCommand::LuaDeploy { file } => {
            let source = std::fs::read(file).context(format!("can't read {}", file.display()))?;
            return Ok(LuaCall::deploy(source).into_transaction(salt));
        }
        SubmitCommand::LuaCall { contract, function, arguments, limit } => {
            let id = hex::decode(contract.trim_start_matches("0x")).context("not hex")?;
            let contract = id.try_into().map_err(|_| failed("a contract's id has 32 bytes"))?;
            let arguments = arguments.iter().map(|text| match text.parse::<i64>() {
                Ok(number) => LuaValue::Int(number),
                Err(_) => LuaValue::Bytes(text.clone().into()),
            });
            let (function, arguments) = (function.clone(), arguments.collect());
            let call = LuaCall::Invoke { contract, function, arguments, limit: *limit };
            return Ok(call.into_transaction(salt));
        }
    };
    Ok(program.into_transaction(salt))
}

fn print(receipt: &Receipt, what: &SubmitCommand) {
    println!("transaction {}", receipt.id);
    println!("position    epoch {}, number {}", receipt.position.epoch.0, receipt.position.index);
    match &receipt.outcome {
        Outcome::Committed => println!("outcome     committed"),
        Outcome::Reverted(code) => println!("outcome     reverted: {code}"),
        Outcome::Invalid(code) => println!("outcome     invalid: {code}"),
        Outcome::Strayed { key, .. } => println!("outcome     strayed at {key}"),
    }
    println!("work        {}", receipt.work);
    if receipt.attempt > 0 {
        println!("strayed     {} times before", receipt.attempt);
    }
    match (what, native::Results::decode(&receipt.output)) {
        (SubmitCommand::Get { .. }, Ok(results)) => {
            for value in results.values {
                println!("value       {}", value.map_or_else(|| "none".into(), |v| number(&v)));
            }
        }
        (SubmitCommand::LuaCall { .. }, _) if receipt.is_committed() => {
            print_lua_results(&receipt.output);
        }
        _ if receipt.output.is_empty() => {}
        _ => println!("output      {}", shown(&receipt.output)),
    }
    for event in &receipt.events {
        println!("event       {} {}", shown(&event.source), shown(&event.data));
    }
}

fn print_lua_results(output: &[u8]) {
    let Ok(results) = Returned::decode(output) else { return };
    for value in results.values {
        match value {
            LuaValue::Nil => println!("value       nil"),
            LuaValue::Bool(value) => println!("value       {value}"),
            LuaValue::Int(value) => println!("value       {value}"),
            LuaValue::Float(value) => println!("value       {value}"),
            LuaValue::Bytes(value) => println!("value       {}", shown(&value)),
        }
    }
}

/// A balance or counter as a number, everything else as [`shown`].
fn number(value: &[u8]) -> String {
    match <[u8; 32]>::try_from(value).ok().as_ref().and_then(|word| word.split_last_chunk()) {
        Some((high, low)) if high.iter().all(|byte| *byte == 0) => {
            u128::from_be_bytes(*low).to_string()
        }
        _ => shown(value),
    }
}

/// Text as it is, everything else as hex.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(bytes)),
    }
}
