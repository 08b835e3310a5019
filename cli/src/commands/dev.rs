//! `parsec dev`: a development chain with Ethereum's JSON-RPC.

use std::net::SocketAddr;

use alloy_primitives::{Address, U256};
use parsec_dev::accounts::DERIVATION_PATH;
use parsec_dev::pool::Order;
use parsec_dev::{Accounts, DevBackend, DevConfig, Mining, rpc};
use parsec_gateway::{Gateway, GatewayConfig};
use parsec_runtimes::evm::Permits;

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
    let config = config(&args, &accounts);
    let directory = tempfile::Builder::new().prefix("parsec-dev-").tempdir();
    let directory = directory.context("no temporary directory")?;
    let backend = DevBackend::start(config, accounts, directory.path()).map_err(failed)?;
    let gateway = Gateway::start(
        gateway_config(&args),
        backend.index(),
        std::sync::Arc::new(backend.clone()),
        rpc::methods(&backend),
    );
    let gateway = gateway.await.context("the gateway can't listen")?;
    if !args.silent {
        print_start(&args, backend.accounts(), gateway.address());
    }
    let stopped = tokio::select! {
        stop = backend.run() => Err(failed(stop)),
        result = tokio::signal::ctrl_c() => result.map_err(failed),
    };
    gateway.stop().await;
    stopped
}

fn config(args: &DevArgs, accounts: &Accounts) -> DevConfig {
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
    DevConfig {
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
    }
}

fn gateway_config(args: &DevArgs) -> GatewayConfig {
    let address = SocketAddr::new(args.host, args.port);
    // Nothing here is worth keeping pages away from.
    let origins = vec!["*".to_owned()];
    let client_version = rpc::client_version();
    GatewayConfig { origins, client_version, ..GatewayConfig::new(address) }
}

fn print_start(args: &DevArgs, accounts: &Accounts, address: SocketAddr) {
    println!("Available Accounts\n==================\n");
    for (index, account) in accounts.addresses().iter().enumerate() {
        println!("({index}) {account} ({} ETH)", args.balance);
    }
    println!("\nPrivate Keys\n==================\n");
    let keys = accounts.addresses().iter().filter_map(|account| accounts.key(account));
    for (index, key) in keys.enumerate() {
        println!("({index}) {key}");
    }
    println!("\nWallet\n==================");
    println!("Mnemonic:          {}", args.mnemonic);
    println!("Derivation path:   {DERIVATION_PATH}");
    for (name, value) in
        [("Chain ID", args.chain_id), ("Base Fee", args.base_fee), ("Gas Limit", args.gas_limit)]
    {
        println!("\n{name}\n==================\n{value}");
    }
    println!("\nListening on {address}");
}
