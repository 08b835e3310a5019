//! Frames: a length (four bytes, little-endian), then the archive of one message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::{FrameError, LinkError, SendError};
use crate::codec::{self, Wire};
use crate::limits::FRAME_BYTES_TARGET;

const HEADER_BYTES: usize = 4;

/// Messages shorter than this are copied together: QUIC keeps each piece that it is handed until
/// it is acknowledged, and walks over all of them for every packet.
const COPY_BYTES_MAX: usize = 16 * 1_024;

/// One message, encoded: its length and its archive.
pub(super) struct Frame(Bytes);

impl Frame {
    /// Encodes a message.
    ///
    /// # Errors
    /// [`SendError::TooLong`].
    pub(super) fn encode<T>(message: &T, bytes_max: usize) -> Result<Self, SendError>
    where
        T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    {
        codec::with_encoded(message, |body| match u32::try_from(body.len()) {
            Ok(length) if body.len() <= bytes_max => {
                Ok(Self(Bytes::from([&length.to_le_bytes(), body].concat())))
            }
            _ => Err(SendError::TooLong { bytes: body.len() as u64, bytes_max }),
        })
    }

    /// How many bytes go over the wire.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    fn is_short(&self) -> bool {
        self.bytes() <= COPY_BYTES_MAX
    }
}

/// Writes frames with as few, and as few small, pieces as possible.
pub(super) async fn write_frames(
    stream: &mut SendStream,
    frames: &[Frame],
) -> Result<(), LinkError> {
    let groups = frames.chunk_by(|one, next| one.is_short() && next.is_short());
    let mut pieces: Vec<_> = groups.map(joined).collect();
    stream.write_all_chunks(&mut pieces).await.map_err(|error| match error {
        WriteError::ConnectionLost(error) => error.into(),
        other => LinkError::lost(other),
    })
}

/// Frames as one piece.
fn joined(frames: &[Frame]) -> Bytes {
    match frames {
        [one] => one.0.clone(),
        many => many.iter().map(|frame| &*frame.0).collect::<Vec<_>>().concat().into(),
    }
}

/// Bounds on what a reader takes from the other side.
#[derive(Clone, Default)]
pub(super) struct ReadLimits {
    /// Longest frame.
    pub(super) bytes_max: usize,
    /// Longest time from the first byte of a frame to its last.
    pub(super) time_max: Option<Duration>,
    /// Bytes that incomplete frames of all readers with these limits may take together.
    pub(super) room: Option<Arc<Semaphore>>,
    /// A buffer that has grown beyond so many bytes is given back after the frame that needed it.
    pub(super) kept_bytes: usize,
}

impl ReadLimits {
    /// Those of who reads what a host of the cluster sends: frames follow one another all the time.
    pub(super) fn of_a_server(bytes_max: usize) -> Self {
        Self { bytes_max, kept_bytes: 2 * FRAME_BYTES_TARGET, ..Self::default() }
    }
}

/// Where a reader's bytes come from: a stream, or a fuzzer's idea of one.
pub(super) trait Chunks {
    /// Fills `pieces` with what has arrived, in order, or waits for it. How many it filled; `None`
    /// at the end.
    async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, ReadError>;
}

impl Chunks for RecvStream {
    async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        Self::read_chunks(self, pieces).await
    }
}

/// Reads frames from a stream. Dropping the future of a read loses nothing.
pub(super) struct FrameReader<S = RecvStream> {
    stream: S,
    buffer: Vec<u8>,
    /// How much of the buffer belongs to frames that were read.
    start: usize,
    limits: ReadLimits,
    began: Option<Instant>,
    held: Option<OwnedSemaphorePermit>,
}

impl<S: Chunks> FrameReader<S> {
    pub(super) fn new(stream: S, limits: ReadLimits) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, limits, began: None, held: None }
    }

    /// The same stream with other limits. What was received stays.
    pub(super) fn set_limits(&mut self, limits: ReadLimits) {
        self.limits = limits;
    }

    /// The next message and its length, or `None` if the stream ended after the last one.
    pub(super) async fn next<T>(&mut self) -> Result<Option<(T, usize)>, FrameError>
    where
        T: rkyv::Archive + Wire,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>>
            + rkyv::Deserialize<T, HighDeserializer<Error>>,
    {
        loop {
            if let Some(length) = self.complete()? {
                let message = codec::decode(&self.rest()[HEADER_BYTES..HEADER_BYTES + length])?;
                self.start += HEADER_BYTES + length;
                self.between_frames();
                return Ok(Some((message, HEADER_BYTES + length)));
            }
            if !self.fill().await? {
                return match self.rest().is_empty() {
                    true => Ok(None),
                    false => Err(FrameError::Truncated),
                };
            }
        }
    }

    /// What is in no frame yet.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The length of the frame that comes next, if all of it is there.
    fn complete(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.rest().first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header);
        let bytes_max = self.limits.bytes_max;
        match usize::try_from(length) {
            Ok(length) if length <= bytes_max => {
                Ok((self.rest().len() >= HEADER_BYTES + length).then_some(length))
            }
            _ => Err(FrameError::TooLong { bytes: length.into(), bytes_max }),
        }
    }

    /// Takes what has arrived, or waits for it. Whether there was anything before the end.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        let mut pieces: [Bytes; 32] = Default::default();
        let read = self.stream.read_chunks(&mut pieces);
        let count = match (self.began, self.limits.time_max) {
            (Some(began), Some(time)) => tokio::time::timeout_at(began + time, read)
                .await
                .map_err(|_| FrameError::Stalled { seconds: time.as_secs() })?,
            _ => read.await,
        };
        let count = count.map_err(|error| match error {
            ReadError::ConnectionLost(error) => error.into(),
            other => LinkError::lost(other),
        })?;
        let pieces = &pieces[..count.unwrap_or(0)];
        let bytes = pieces.iter().map(Bytes::len).sum();
        self.hold(bytes)?;
        if self.buffer.capacity() - self.buffer.len() < bytes {
            // What was read makes room before the buffer grows.
            self.buffer.drain(..std::mem::take(&mut self.start));
        }
        pieces.iter().for_each(|piece| self.buffer.extend_from_slice(piece));
        if self.began.is_none() && !self.rest().is_empty() {
            self.began = Some(Instant::now());
        }
        Ok(count.is_some())
    }

    /// Takes room for `bytes` more that are about to be buffered.
    fn hold(&mut self, bytes: usize) -> Result<(), FrameError> {
        let Some(room) = &self.limits.room else { return Ok(()) };
        let bytes = u32::try_from(bytes).map_err(|_| FrameError::NoRoom)?;
        let more = room.clone().try_acquire_many_owned(bytes).map_err(|_| FrameError::NoRoom)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// A frame is complete: what it held is free, and the next one's time begins.
    fn between_frames(&mut self) {
        let left = self.rest().len();
        self.began = (left > 0).then(Instant::now);
        if left == 0 {
            self.held = None;
            self.start = 0;
            self.buffer.clear();
            if self.buffer.capacity() > self.limits.kept_bytes {
                self.buffer = Vec::new();
            }
        } else if let Some(held) = &mut self.held {
            // What is left in the buffer stays accounted for.
            drop(held.split(held.num_permits().saturating_sub(left)));
        }
    }
}
