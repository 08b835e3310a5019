//! The thread that writes the log.

use std::time::Instant;

use parsec_protocol::{BatchRef, EpochNumber, EpochRecord};
use parsec_sequencer_core::Durability;
use parsec_storage::log::{LogError, LogWriter};
use tokio::sync::{mpsc, watch};

use crate::stop::Stop;

/// What is to be done to the log, in this order.
pub(crate) enum LogCommand {
    Batch { reference: BatchRef, encoded: Vec<u8> },
    Epoch(EpochRecord),
    Sync,
}

/// Writes the log until no more commands can come, and says in `durable` how far it is durable.
/// An error stops everything: nobody knows then what the disk holds.
pub(crate) fn write_log(
    mut writer: LogWriter,
    mut commands: mpsc::Receiver<LogCommand>,
    durable: &watch::Sender<EpochNumber>,
    stop: &Stop,
) {
    let mut state = Durability::new(*durable.borrow());
    while let Some(command) = commands.blocking_recv() {
        if let Err(error) = carry_out(&mut writer, command, &mut state, durable) {
            state.on_failed();
            stop.fail(format!("the log in {} failed: {error}", writer.directory().display()));
            return;
        }
    }
}

fn carry_out(
    writer: &mut LogWriter,
    command: LogCommand,
    state: &mut Durability,
    durable: &watch::Sender<EpochNumber>,
) -> Result<(), LogError> {
    match command {
        LogCommand::Batch { reference, encoded } => {
            metrics::counter!("parsec_sequencer_batch_bytes_total").increment(encoded.len() as u64);
            writer.append_batch(&reference, &encoded)?;
        }
        LogCommand::Epoch(record) => {
            writer.append_epoch(&record)?;
            state.on_appended(record.number);
        }
        LogCommand::Sync => {
            let started = Instant::now();
            writer.sync()?;
            metrics::histogram!("parsec_sequencer_sync_seconds").record(started.elapsed());
            state.on_synced();
            durable.send_replace(state.durable());
        }
    }
    Ok(())
}
