//! What both ends of a client's connection have in common.

use std::time::Duration;

use quinn::{Connection, SendStream};
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::super::endpoint::{self, LINGER};
use super::super::error::{CloseCode, LinkError, SendError};
use super::super::frame::{Frame, write_frames};
use crate::limits::CLIENT_FRAME_BYTES_MAX;
use crate::message::{ServerMessage, short};

/// A connection and the sending half of its stream.
pub(super) struct Link {
    connection: Connection,
    half: Mutex<SendHalf>,
    send_timeout: Option<Duration>,
    /// One of the connections that the server allows.
    _slot: Option<OwnedSemaphorePermit>,
}

struct SendHalf {
    stream: SendStream,
    /// Whether a frame was begun and not finished: nothing can be sent after it.
    torn: bool,
}

impl Link {
    pub(super) fn new(
        connection: Connection,
        stream: SendStream,
        send_timeout: Option<Duration>,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let half = Mutex::new(SendHalf { stream, torn: false });
        Self { connection, half, send_timeout, _slot: slot }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends one message, waiting until the other side has room for it.
    ///
    /// If the future is dropped while it waits, the connection can't be used any more.
    pub(super) async fn send<T>(&self, message: &T) -> Result<(), SendError>
    where
        T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    {
        let frame = Frame::encode(message, CLIENT_FRAME_BYTES_MAX)?;
        let Some(time) = self.send_timeout else {
            return Ok(self.write(frame).await?);
        };
        let written = tokio::time::timeout(time, self.write(frame)).await;
        written.unwrap_or_else(|_| {
            let detail = format!("nothing was read for {} s", time.as_secs());
            Err(self.close(CloseCode::Unread, &detail))
        })?;
        Ok(())
    }

    async fn write(&self, frame: Frame) -> Result<(), LinkError> {
        let mut half = self.half.lock().await;
        if half.torn {
            return Err(self.close(CloseCode::Malformed, "a message was not sent to its end"));
        }
        half.torn = true;
        let written = write_frames(&mut half.stream, &[frame]).await;
        half.torn = written.is_err();
        written.map_err(|error| self.known_reason(error))
    }

    /// Says goodbye, gives it a moment to arrive, and closes the connection.
    pub(super) async fn goodbye(&self, code: CloseCode, reason: &str) {
        let farewell = async {
            self.send(&ServerMessage::Goodbye { reason: short(reason) }).await.ok()?;
            let arrived = {
                let mut half = self.half.lock().await;
                half.stream.finish().ok()?;
                half.stream.stopped()
            };
            arrived.await.ok()
        };
        if tokio::time::timeout(LINGER, farewell).await.is_err() {
            tracing::debug!(client = %self.connection.remote_address(), "not waiting for goodbye");
        }
        self.close(code, reason);
    }

    /// Closes the connection at once.
    pub(super) fn close(&self, code: CloseCode, reason: &str) -> LinkError {
        endpoint::close(&self.connection, code, reason);
        LinkError::closed(code, reason)
    }

    /// The connection knows better than a stream of it why it ended.
    pub(super) fn known_reason(&self, error: LinkError) -> LinkError {
        self.connection.close_reason().map_or(error, LinkError::from)
    }
}
