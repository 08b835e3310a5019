//! The methods, by family.

mod blocks;
mod calls;
mod debug;
mod fees;
mod logs;
mod net;
mod ots;
mod pool;
mod request;
mod send;
mod state;
mod traces;
mod transactions;

use std::sync::Arc;

use serde::Serialize;

use crate::node::Node;
use crate::rpc::{Methods, Params, RpcError};

pub(crate) use logs::{Criteria, log_changes, read_criteria};
pub(crate) use send::send_all;
pub(crate) use transactions::pooled;

/// All methods of a gateway.
pub(crate) fn all(node: &Arc<Node>) -> Methods {
    let mut family = Family { node: Arc::clone(node), methods: Methods::new() };
    blocks::add(&mut family);
    calls::add(&mut family);
    debug::add(&mut family);
    fees::add(&mut family);
    logs::add(&mut family);
    net::add(&mut family);
    ots::add(&mut family);
    pool::add(&mut family);
    send::add(&mut family);
    state::add(&mut family);
    traces::add(&mut family);
    transactions::add(&mut family);
    family.methods
}

/// Methods that share a node.
struct Family {
    node: Arc<Node>,
    methods: Methods,
}

impl Family {
    /// Adds a method that only reads.
    fn read<P, F, T>(
        &mut self,
        name: &'static str,
        method: impl Fn(Arc<Node>, P) -> F + Send + Sync + 'static,
    ) where
        P: Params,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        let node = Arc::clone(&self.node);
        self.methods.add_read(name, move |params: P| method(Arc::clone(&node), params));
    }

    /// Adds a method whose calls are answered in turn.
    fn act<P, F, T>(
        &mut self,
        name: &'static str,
        method: impl Fn(Arc<Node>, P) -> F + Send + Sync + 'static,
    ) where
        P: Params,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        let node = Arc::clone(&self.node);
        self.methods.add(name, move |params: P| method(Arc::clone(&node), params));
    }
}
