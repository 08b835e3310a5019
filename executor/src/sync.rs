//! What locks and waits are made of, in one place, so that `tests/schedules.rs` can put shuttle's
//! primitives in their stead: it compiles `monitor.rs` and `outgoing.rs` a second time, with a
//! module of this name that takes everything from shuttle.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
