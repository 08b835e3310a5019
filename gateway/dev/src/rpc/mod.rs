//! The methods that a development chain has beside Ethereum's own, in the words of anvil and
//! Hardhat.

mod cheats;
mod config;
mod dump;
mod erc20;
mod history;
mod info;
mod mine;
mod request;
mod send;
mod sign;

use std::sync::Arc;

use parsec_gateway::rpc::{INTERNAL_ERROR, Methods, Params, RpcError};
use serde::Serialize;

use crate::backend::DevBackend;
use crate::chain::Stop;

/// What `web3_clientVersion` says. Hardhat's plugins and helpers look at its beginning, and do
/// only on chains whose names they know what they do on development chains.
#[must_use]
pub fn client_version() -> String {
    format!("anvil-compatible/parsec/v{}", env!("CARGO_PKG_VERSION"))
}

/// The methods of a development chain, to be added to those of the gateway.
#[must_use]
pub fn methods(backend: &DevBackend) -> Methods {
    let mut family = Family { backend: backend.clone(), methods: Methods::new() };
    cheats::add(&mut family);
    dump::add(&mut family);
    erc20::add(&mut family);
    history::add(&mut family);
    config::add(&mut family);
    info::add(&mut family);
    mine::add(&mut family);
    send::add(&mut family);
    sign::add(&mut family);
    family.methods
}

/// Methods that share a chain.
struct Family {
    backend: DevBackend,
    methods: Methods,
}

impl Family {
    /// Adds a method under several names. Its calls are answered in turn.
    fn act<P, F, T>(
        &mut self,
        names: &[&'static str],
        method: impl Fn(DevBackend, P) -> F + Send + Sync + 'static,
    ) where
        P: Params + 'static,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize + 'static,
    {
        let method = Arc::new(method);
        for name in names {
            let (method, backend) = (Arc::clone(&method), self.backend.clone());
            self.methods.add(name, move |params: P| method(backend.clone(), params));
        }
    }
}

fn stopped(stop: Stop) -> RpcError {
    RpcError::new(INTERNAL_ERROR, stop.to_string())
}
