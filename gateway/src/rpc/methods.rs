//! Methods by name.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::error::{INTERNAL_ERROR, RpcError};
use super::params::Params;

type Outcome = Result<Box<RawValue>, RpcError>;
type Handler = Arc<
    dyn Fn(Option<Box<RawValue>>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync,
>;

/// Methods by name.
#[derive(Clone, Default)]
pub struct Methods {
    by_name: BTreeMap<&'static str, Method>,
}

/// A method.
#[derive(Clone)]
pub(crate) struct Method {
    pub(crate) handler: Handler,
    /// Whether its calls may be answered in any order.
    pub(crate) reads: bool,
}

impl Methods {
    /// No methods.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method, instead of the one that has the name already. In a batch it is called when
    /// all before it has been answered.
    pub fn add<P, F, T>(
        &mut self,
        name: &'static str,
        method: impl Fn(P) -> F + Send + Sync + 'static,
    ) where
        P: Params,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        self.insert(name, method, false);
    }

    /// Adds a method that only reads: those of a batch are called together.
    pub fn add_read<P, F, T>(
        &mut self,
        name: &'static str,
        method: impl Fn(P) -> F + Send + Sync + 'static,
    ) where
        P: Params,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        self.insert(name, method, true);
    }

    fn insert<P, F, T>(
        &mut self,
        name: &'static str,
        method: impl Fn(P) -> F + Send + Sync + 'static,
        reads: bool,
    ) where
        P: Params,
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        let handler: Handler = Arc::new(move |params| {
            let answer = P::read(params.as_deref()).map(&method);
            Box::pin(async move { write(&answer?.await?) })
        });
        self.by_name.insert(name, Method { handler, reads });
    }

    /// Adds methods, instead of those that have their names already.
    pub fn extend(&mut self, methods: Self) {
        self.by_name.extend(methods.by_name);
    }

    /// The names of the methods.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }

    /// A method, and its name for the metrics, which must not be a client's.
    pub(crate) fn get(&self, name: &str) -> Option<(&'static str, &Method)> {
        self.by_name.get_key_value(name).map(|(name, method)| (*name, method))
    }
}

/// The JSON of a result.
pub(crate) fn write(result: &impl Serialize) -> Outcome {
    serde_json::value::to_raw_value(result).map_err(|error| {
        tracing::error!(%error, "an answer can't be written");
        RpcError::new(INTERNAL_ERROR, "the answer can't be written")
    })
}
