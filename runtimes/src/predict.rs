//! Prediction of footprints from those of earlier calls.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use parsec_protocol::{Footprint, RuntimeId};

/// Predicts the footprint of a call from those of earlier ones.
///
/// A prediction may be wrong: execution verifies it, and a transaction that strays is ordered
/// again with a footprint found by a trial.
pub trait Predictor: Send + Sync {
    /// The footprint that the call will probably have, if enough like it have been seen.
    fn predict(&self, sender: &[u8], payload: &Bytes) -> Option<Footprint>;

    /// A trial found that the call has this footprint.
    fn learn(&mut self, sender: &[u8], payload: &Bytes, footprint: &Footprint);

    /// The prediction for this call was wrong.
    fn forget(&mut self, sender: &[u8], payload: &Bytes);
}

/// The predictors of all runtimes that have one, shared by threads.
pub struct Predictors {
    by_id: Vec<Option<RwLock<Box<dyn Predictor>>>>,
}

impl Predictors {
    pub(crate) fn new(by_id: impl Iterator<Item = Option<Box<dyn Predictor>>>) -> Self {
        Self { by_id: by_id.map(|predictor| predictor.map(RwLock::new)).collect() }
    }

    /// See [`Predictor::predict`].
    #[must_use]
    pub fn predict(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes) -> Option<Footprint> {
        let predictor = self.get(runtime)?;
        // Whatever a thread that panicked has left behind is only a wrong prediction.
        predictor.read().unwrap_or_else(PoisonError::into_inner).predict(sender, payload)
    }

    /// See [`Predictor::learn`].
    pub fn learn(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes, footprint: &Footprint) {
        if let Some(predictor) = self.get(runtime) {
            let mut predictor = predictor.write().unwrap_or_else(PoisonError::into_inner);
            predictor.learn(sender, payload, footprint);
        }
    }

    /// See [`Predictor::forget`].
    pub fn forget(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes) {
        if let Some(predictor) = self.get(runtime) {
            predictor.write().unwrap_or_else(PoisonError::into_inner).forget(sender, payload);
        }
    }

    fn get(&self, runtime: RuntimeId) -> Option<&RwLock<Box<dyn Predictor>>> {
        self.by_id.get(usize::from(runtime.0))?.as_ref()
    }
}
