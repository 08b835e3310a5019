//! `parsec relay`: a network between machines, for benchmarks.

use std::time::Duration;

use crate::args::RelayArgs;
use crate::failure::Failure;
use crate::processes::relay::{Relay, RelayOptions};

use super::node::asked_to_stop;

/// Relays datagrams until ctrl-C, or until standard input ends.
///
/// # Errors
/// What can't be listened on.
pub async fn relay(args: RelayArgs) -> Result<(), Failure> {
    let RelayArgs { delay_us, loss_millionths, seed, links } = args;
    let asked = asked_to_stop(true)?;
    let delay = Duration::from_micros(delay_us);
    let relay = Relay::start(&RelayOptions { links, delay, loss_millionths, seed }).await?;
    asked.await?;
    let (taken, lost) = relay.counts();
    eprintln!("{taken} datagrams, of which {lost} were lost");
    Ok(())
}
