//! Prediction of footprints from those of earlier calls.

pub(crate) mod learner;

use bytes::Bytes;
use parsec_protocol::{Footprint, RuntimeId};

/// Predicts the footprint of a call from those of earlier ones. Shared by threads.
///
/// A prediction may be wrong: execution verifies it, and a transaction that strays is ordered
/// again with a footprint found by a trial.
pub trait Predictor: Send + Sync {
    /// The footprint that the call will probably have, if enough like it have been seen. Now and
    /// then there is none though it could be told, so that a trial shows whether it still holds.
    fn predict(&self, sender: &[u8], payload: &Bytes) -> Option<Footprint>;

    /// A trial, which committed, found that the call has this footprint.
    fn learn(&self, sender: &[u8], payload: &Bytes, footprint: &Footprint);

    /// The call strayed from this footprint.
    fn strayed(&self, sender: &[u8], payload: &Bytes, footprint: &Footprint);

    /// Whether calls like it have other footprints again and again, depending on the state.
    fn is_erratic(&self, sender: &[u8], payload: &Bytes) -> bool;
}

/// The predictors of all runtimes that have one, shared by threads.
pub struct Predictors {
    by_id: Vec<Option<Box<dyn Predictor>>>,
}

impl Predictors {
    pub(crate) fn new(by_id: impl Iterator<Item = Option<Box<dyn Predictor>>>) -> Self {
        Self { by_id: by_id.collect() }
    }

    /// See [`Predictor::predict`].
    #[must_use]
    pub fn predict(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes) -> Option<Footprint> {
        self.get(runtime)?.predict(sender, payload)
    }

    /// See [`Predictor::learn`].
    pub fn learn(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes, footprint: &Footprint) {
        if let Some(predictor) = self.get(runtime) {
            predictor.learn(sender, payload, footprint);
        }
    }

    /// See [`Predictor::strayed`].
    pub fn strayed(
        &self,
        runtime: RuntimeId,
        sender: &[u8],
        payload: &Bytes,
        footprint: &Footprint,
    ) {
        if let Some(predictor) = self.get(runtime) {
            predictor.strayed(sender, payload, footprint);
        }
    }

    /// See [`Predictor::is_erratic`].
    #[must_use]
    pub fn is_erratic(&self, runtime: RuntimeId, sender: &[u8], payload: &Bytes) -> bool {
        self.get(runtime).is_some_and(|predictor| predictor.is_erratic(sender, payload))
    }

    fn get(&self, runtime: RuntimeId) -> Option<&dyn Predictor> {
        self.by_id.get(usize::from(runtime.0))?.as_deref()
    }
}
