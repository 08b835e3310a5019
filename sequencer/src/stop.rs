//! Stopping, in order or because something failed.

use tokio::sync::watch;

/// Why a sequencer stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to.
    Asked,
    /// It can't go on: what happened, and what to do.
    Failed(String),
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked => f.write_str("it was asked to stop"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Tells every part of a sequencer to stop. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Sender<Option<StopReason>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Stops everything; the first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.0.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                if let StopReason::Failed(reason) = &reason {
                    tracing::error!(reason, "the sequencer stops");
                }
                *known = Some(reason);
            }
            first
        });
    }

    /// Stops everything because of a failure.
    pub(crate) fn fail(&self, reason: impl std::fmt::Display) {
        self.stop(StopReason::Failed(reason.to_string()));
    }

    /// Returns when everything is to stop.
    pub(crate) async fn stopped(&self) -> StopReason {
        let mut watch = self.0.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Asked),
            Err(_) => StopReason::Asked,
        }
    }

    /// Whether everything is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for `work`, unless everything is to stop first.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.stopped() => None,
            value = work => Some(value),
        }
    }
}

/// Stops everything if the thread or task that holds it panics.
#[derive(Debug)]
pub(crate) struct StopOnPanic(pub(crate) Stop);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a part of it panicked");
        }
    }
}
