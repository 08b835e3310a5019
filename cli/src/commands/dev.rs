//! `parsec dev`: a development chain with Ethereum's JSON-RPC.

use std::net::SocketAddr;
use std::path::Path;

use alloy_primitives::{Address, U256};
use parsec_dev::accounts::DERIVATION_PATH;
use parsec_dev::pool::Order;
use parsec_dev::{Accounts, DevBackend, DevConfig, Mining, rpc};
use parsec_gateway::{Backend as _, Gateway, GatewayConfig};
use parsec_runtimes::evm::Permits;
use parsec_runtimes::evm::verify::{self, Genesis};

use crate::args::{DevArgs, OrderName};
use crate::failure::{Context, Failure, failed};

/// Wei in an ether.
const ETHER: u64 = 1_000_000_000_000_000_000;

/// Runs a development chain until ctrl-C, or until it must not go on.
///
/// # Errors
/// What it can't be started with, or why it stopped of itself.
pub async fn dev(args: DevArgs) -> Result<(), Failure> {
    let accounts = Accounts::of_mnemonic(&args.mnemonic, args.accounts).map_err(failed)?;
    let config = config(&args, &accounts)?;
    let directory = tempfile::Builder::new().prefix("parsec-dev-").tempdir();
    let directory = directory.context("no temporary directory")?;
    let backend = DevBackend::start(config, accounts, directory.path()).map_err(failed)?;
    if let Some(file) = &args.import {
        import(&backend, file, !args.no_state_roots).await?;
    }
    let gateway = Gateway::start(
        gateway_config(&args),
        backend.index(),
        std::sync::Arc::new(backend.clone()),
        rpc::methods(&backend),
    );
    let gateway = gateway.await.context("the gateway can't listen")?;
    if !args.silent {
        print_start(&args, &backend, gateway.address());
    }
    let stopped = tokio::select! {
        stop = backend.run() => Err(failed(stop)),
        result = tokio::signal::ctrl_c() => result.map_err(failed),
    };
    gateway.stop().await;
    stopped
}

/// Imports the blocks of a file.
async fn import(backend: &DevBackend, file: &Path, checks_roots: bool) -> Result<(), Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file).context(format!("{shown} can't be read"))?;
    let blocks = verify::split(&bytes).context(format!("{shown} holds no blocks"))?;
    let imported = backend.import(blocks, checks_roots).await.map_err(failed)?;
    imported.context(format!("{shown} is not imported"))
}

/// The genesis of another chain, if one is given.
fn genesis(args: &DevArgs) -> Result<Option<Box<Genesis>>, Failure> {
    let Some(file) = &args.init else { return Ok(None) };
    let shown = file.display();
    let bytes = std::fs::read(file).context(format!("{shown} can't be read"))?;
    let genesis = Genesis::read(&bytes).context(format!("{shown} can't be used"))?;
    Ok(Some(Box::new(genesis)))
}

fn config(args: &DevArgs, accounts: &Accounts) -> Result<DevConfig, Failure> {
    let balance = U256::from(args.balance) * U256::from(ETHER);
    let mining = match args.block_time {
        Some(millis) => Mining::Interval(millis),
        None if args.no_mining => Mining::Manual,
        None => Mining::Auto,
    };
    let permits = Permits {
        code_bytes_max: Some(args.code_size_limit.unwrap_or(u64::MAX)),
        transaction_gas_max: (!args.enable_tx_gas_limit).then_some(u64::MAX),
        contracts_send: true,
    };
    Ok(DevConfig {
        chain_id: args.chain_id,
        fork: args.hardfork.clone(),
        gas_limit: args.gas_limit,
        base_fee: args.base_fee,
        coinbase: Address::ZERO,
        timestamp: args.timestamp,
        accounts: accounts.addresses().iter().map(|address| (*address, balance)).collect(),
        mining,
        order: match args.order {
            OrderName::Fees => Order::Fees,
            OrderName::Fifo => Order::Arrival,
        },
        permits,
        impersonates_all: args.auto_impersonate,
        state_window: args.state_window,
        genesis: genesis(args)?,
    })
}

fn gateway_config(args: &DevArgs) -> GatewayConfig {
    let address = SocketAddr::new(args.host, args.port);
    // Nothing here is worth keeping pages away from.
    let origins = vec!["*".to_owned()];
    let client_version = rpc::client_version();
    GatewayConfig { origins, client_version, ..GatewayConfig::new(address) }
}

fn print_start(args: &DevArgs, backend: &DevBackend, address: SocketAddr) {
    let accounts = backend.accounts();
    println!("Available Accounts\n==================\n");
    let balance = if args.init.is_some() { 0 } else { args.balance };
    for (index, account) in accounts.addresses().iter().enumerate() {
        println!("({index}) {account} ({balance} ETH)");
    }
    println!("\nPrivate Keys\n==================\n");
    let keys = accounts.addresses().iter().filter_map(|account| accounts.key(account));
    for (index, key) in keys.enumerate() {
        println!("({index}) {key}");
    }
    println!("\nWallet\n==================");
    println!("Mnemonic:          {}", args.mnemonic);
    println!("Derivation path:   {DERIVATION_PATH}");
    let next = backend.pending();
    let base_fee = if args.init.is_some() { next.base_fee } else { args.base_fee };
    for (name, value) in
        [("Chain ID", backend.chain_id()), ("Base Fee", base_fee), ("Gas Limit", next.gas_limit)]
    {
        println!("\n{name}\n==================\n{value}");
    }
    println!("\nListening on {address}");
}
