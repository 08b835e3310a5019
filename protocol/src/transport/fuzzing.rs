//! For fuzz targets only: the reader of frames, over bytes instead of a stream.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::ReadError;
use rkyv::api::high::{HighDeserializer, HighValidator};
use rkyv::rancor::Error;
use tokio::sync::Semaphore;

use super::error::FrameError;
use super::frame::{Chunks, FrameReader, ReadLimits};
use crate::codec::Wire;

/// A stream that has all of its pieces already.
struct Pieces(VecDeque<Bytes>);

impl Chunks for Pieces {
    async fn read_chunks(&mut self, pieces: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        // One at a time, so that the sizes of the pieces decide how far the reader gets.
        let (Some(piece), Some(place)) = (self.0.pop_front(), pieces.first_mut()) else {
            return Ok(None);
        };
        *place = piece;
        Ok(Some(1))
    }
}

/// What became of a stream.
#[derive(Debug)]
pub struct Frames<T> {
    /// The messages, each with the length of its frame, bytes.
    pub messages: Vec<(T, usize)>,
    /// Why reading ended, unless the stream ended after a frame.
    pub error: Option<FrameError>,
    /// How much of the room that incomplete frames may take was not given back, bytes.
    pub room_lost: usize,
}

/// Reads the frames of a stream that arrives in these pieces, none of them empty: at most
/// `bytes_max` bytes each, with `room` bytes for incomplete ones.
///
/// # Panics
/// If the reader waits although the stream has ended.
#[must_use]
pub fn read_frames<T>(pieces: Vec<Bytes>, bytes_max: usize, room: usize) -> Frames<T>
where
    T: rkyv::Archive + Wire,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>>
        + rkyv::Deserialize<T, HighDeserializer<Error>>,
{
    let semaphore = Arc::new(Semaphore::new(room));
    let limits = ReadLimits { bytes_max, room: Some(semaphore.clone()), ..ReadLimits::default() };
    let mut reader = FrameReader::new(Pieces(pieces.into()), limits);
    let mut messages = Vec::new();
    let error = loop {
        match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(message))) => messages.push(message),
            Poll::Ready(Ok(None)) => break None,
            Poll::Ready(Err(error)) => break Some(error),
            Poll::Pending => panic!("the reader waits for a stream that has ended"),
        }
    };
    drop(reader);
    Frames { messages, error, room_lost: room - semaphore.available_permits() }
}
