//! Ordering the genesis before anything else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parsec_protocol::{EpochNumber, RuntimeId};
use parsec_runtimes::system::Load;
use parsec_sequencer_core::{Candidate, Refused};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Input, View};
use crate::index::{IdIndex, IndexError};

/// Loads submitted at a time.
const LOADS_PER_UNIT: usize = 64;
/// How long to wait for room in the lane, and for what was submitted to be ordered.
const PAUSE: Duration = Duration::from_millis(2);

/// Submits the genesis and waits until it is ordered. Returns the last epoch then, or `None` if
/// the driver has stopped.
///
/// It is submitted at every start: what of it was ordered before is known by its ids, so that a
/// crash in the middle of it does no harm.
pub(crate) async fn order(
    loads: Vec<Load>,
    index: &Arc<IdIndex>,
    inputs: &mpsc::Sender<Input>,
    view: &View,
) -> Result<Option<EpochNumber>, IndexError> {
    let mut open = Vec::new();
    for load in loads {
        open.push(load);
        while open.len() >= LOADS_PER_UNIT {
            let Some(refused) = submit(open, index, inputs).await? else { return Ok(None) };
            open = refused;
        }
    }
    while !open.is_empty() {
        let Some(refused) = submit(open, index, inputs).await? else { return Ok(None) };
        open = refused;
    }
    while view.unordered() > 0 {
        if inputs.is_closed() {
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Some(view.ordered()))
}

/// Submits loads. Returns those that have to be submitted again.
///
/// ORDER: loads are refused for want of room only from some point on, so what is submitted again
/// still comes after all that was taken.
async fn submit(
    loads: Vec<Load>,
    index: &Arc<IdIndex>,
    inputs: &mpsc::Sender<Input>,
) -> Result<Option<Vec<Load>>, IndexError> {
    let mut unit = Vec::with_capacity(loads.len());
    for load in &loads {
        unit.push((candidate(load), index.lookup(&load.id)?, None));
    }
    let (answer, answers) = oneshot::channel();
    if inputs.send(Input::Submit { unit, answer }).await.is_err() {
        return Ok(None);
    }
    let Ok(submitted) = answers.await else { return Ok(None) };
    let mut verdicts = submitted.verdicts.into_iter();
    // Nothing was said of those whose lookup was too old.
    let mut is_open = |_: &Load| matches!(verdicts.next(), None | Some(Err(Refused::Busy)));
    let open: Vec<_> = loads.into_iter().filter(&mut is_open).collect();
    if !open.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Some(open))
}

fn candidate(load: &Load) -> Candidate {
    Candidate {
        id: load.id,
        runtime: RuntimeId::SYSTEM,
        sender: Bytes::new(),
        payload: load.payload.clone(),
        footprint: load.footprint.clone(),
        expires: None,
        renews: false,
    }
}
