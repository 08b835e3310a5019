//! One session of a link: what carries it, and for QUIC its queues, and the tasks that write and
//! read its streams.

use std::sync::Arc;

use metrics::{Counter, Label};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::super::endpoint;
use super::super::error::{CloseCode, FrameError, LinkError, SendError};
use super::super::frame::{Frame, FrameReader, ReadLimits, write_frames};
use super::inbox::{Gate, Received, Sinks};
use super::memory::End;
use super::{Channel, Shared};
use crate::limits::PEER_FRAME_BYTES_MAX;
use crate::message::PeerMessage;
use crate::placement::NodeId;

/// Most messages that are written at once.
const WRITE_MESSAGES_MAX: usize = 256;

/// What two nodes can have a session over.
pub(super) enum Carrier {
    /// A connection whose handshake is done.
    Quic(Connection),
    /// An end of a link within this process.
    Memory(End),
}

/// A link while it is up.
pub(super) struct Session {
    number: u64,
    node: NodeId,
    way: Way,
}

/// How messages leave.
enum Way {
    /// By way of the tasks that write the streams of a connection.
    Queues([Queue; 3]),
    /// At once.
    Memory(Arc<End>),
}

/// Messages that wait to be written to one stream.
struct Queue {
    frames: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    bytes_max: u32,
}

struct Queued {
    frame: Frame,
    /// Room in the queue, given back when the frame is handed to QUIC.
    _room: OwnedSemaphorePermit,
}

impl Session {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a message, or hands it over; waits while there is no room.
    pub(super) async fn send(
        &self,
        channel: Channel,
        message: &PeerMessage,
    ) -> Result<(), SendError> {
        let down = SendError::Down(self.node);
        match &self.way {
            Way::Queues(queues) => {
                let frame = Frame::encode(message, PEER_FRAME_BYTES_MAX)?;
                queues[channel.index()].put(frame).await.ok_or(down)
            }
            Way::Memory(end) => end.send(channel, message).await.map_err(|_| down),
        }
    }

    /// Lets everybody know who waits for room: there will be none.
    fn shut(&self) {
        match &self.way {
            Way::Queues(queues) => queues.iter().for_each(|queue| queue.room.close()),
            Way::Memory(end) => end.close(super::shutdown()),
        }
    }
}

impl Queue {
    /// Waits for room; `None` if there will be none.
    async fn put(&self, frame: Frame) -> Option<()> {
        let bytes = u32::try_from(frame.bytes()).unwrap_or(u32::MAX).min(self.bytes_max);
        let room = self.room.clone().acquire_many_owned(bytes).await.ok()?;
        self.frames.send(Queued { frame, _room: room }).await.ok()
    }
}

/// What keeps a session up. Dropping it ends the session.
pub(super) struct Tasks {
    session: Arc<Session>,
    running: Running,
}

enum Running {
    Quic {
        connection: Connection,
        /// Those that read and write.
        streams: JoinSet<LinkError>,
    },
    Memory(Arc<End>),
}

/// Starts a session. The gate is to be opened by its announcement.
pub(super) fn start(
    shared: &Shared,
    node: NodeId,
    carrier: Carrier,
) -> (Arc<Session>, Tasks, Gate) {
    let (session, running, gate) = match carrier {
        Carrier::Quic(connection) => {
            let (number, gate) = (shared.next_session(), Gate::new());
            let mut streams = JoinSet::new();
            let queues = start_writers(shared, node, &connection, &mut streams);
            for _ in Channel::ALL {
                let (connection, sinks) = (connection.clone(), shared.sinks.clone());
                streams.spawn(read(connection, node, number, sinks, gate.clone()));
            }
            let session = Session { number, node, way: Way::Queues(queues) };
            (session, Running::Quic { connection, streams }, gate)
        }
        Carrier::Memory(end) => {
            let (number, gate, end) = (end.number(), end.gate().clone(), Arc::new(end));
            let session = Session { number, node, way: Way::Memory(end.clone()) };
            (session, Running::Memory(end), gate)
        }
    };
    let session = Arc::new(session);
    (session.clone(), Tasks { session, running }, gate)
}

fn start_writers(
    shared: &Shared,
    node: NodeId,
    connection: &Connection,
    streams: &mut JoinSet<LinkError>,
) -> [Queue; 3] {
    let options = &shared.options;
    Channel::ALL.map(|channel| {
        let (frames, queued) = mpsc::channel(options.queue_messages);
        streams.spawn(write(connection.clone(), channel, queued, Traffic::sent(node, channel)));
        let room = usize::try_from(options.queue_bytes).unwrap_or(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(room));
        Queue { frames, room, bytes_max: options.queue_bytes }
    })
}

impl Tasks {
    /// Returns when the session has ended by itself, with the reason.
    pub(super) async fn ended(&mut self) -> LinkError {
        match &mut self.running {
            Running::Quic { connection, streams } => tokio::select! {
                error = connection.closed() => error.into(),
                Some(ended) = streams.join_next() => match ended {
                    // The connection knows better why a stream of it ended.
                    Ok(error) => connection.close_reason().map_or(error, LinkError::from),
                    Err(panic) => LinkError::closed(CloseCode::Malformed, panic.to_string()),
                },
            },
            Running::Memory(end) => end.closed().await,
        }
    }

    /// Ends the session. When this returns, nothing of it will arrive any more.
    pub(super) async fn end(mut self, reason: &LinkError) {
        if let Running::Memory(end) = &self.running {
            // ORDER: before others close it with no reason.
            end.close(reason.clone());
        }
        self.session.shut();
        let Running::Quic { connection, streams } = &mut self.running else { return };
        if let LinkError::Closed { code, detail } = reason {
            endpoint::close(connection, *code, detail);
        } else {
            endpoint::close(connection, CloseCode::Shutdown, "the link has ended");
        }
        streams.shutdown().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Whoever waits for room keeps the session, and so would wait for ever.
        self.session.shut();
    }
}

/// Counts what passes in one direction of one channel.
struct Traffic {
    frames: Counter,
    bytes: Counter,
}

impl Traffic {
    fn sent(node: NodeId, channel: Channel) -> Self {
        let labels = Self::labels(node, channel);
        Self {
            frames: metrics::counter!("parsec_peer_frames_sent_total", labels.iter()),
            bytes: metrics::counter!("parsec_peer_bytes_sent_total", labels.iter()),
        }
    }

    fn received(node: NodeId, channel: Channel) -> Self {
        let labels = Self::labels(node, channel);
        Self {
            frames: metrics::counter!("parsec_peer_frames_received_total", labels.iter()),
            bytes: metrics::counter!("parsec_peer_bytes_received_total", labels.iter()),
        }
    }

    fn labels(node: NodeId, channel: Channel) -> [Label; 2] {
        let channel = Label::from_static_parts("channel", channel.name());
        [Label::new("peer", node.to_string()), channel]
    }

    fn count(&self, frames: usize, bytes: usize) {
        self.frames.increment(frames as u64);
        self.bytes.increment(bytes as u64);
    }
}

/// Writes the queue of one channel to its stream.
async fn write(
    connection: Connection,
    channel: Channel,
    mut queue: mpsc::Receiver<Queued>,
    traffic: Traffic,
) -> LinkError {
    match write_stream(&connection, channel, &mut queue, &traffic).await {
        Ok(()) => super::shutdown(),
        Err(error) => error,
    }
}

async fn write_stream(
    connection: &Connection,
    channel: Channel,
    queue: &mut mpsc::Receiver<Queued>,
    traffic: &Traffic,
) -> Result<(), LinkError> {
    let mut stream: SendStream = connection.open_uni().await?;
    stream.write_all(&[channel.tag()]).await.map_err(LinkError::lost)?;
    let mut ready = Vec::new();
    while queue.recv_many(&mut ready, WRITE_MESSAGES_MAX).await > 0 {
        let bytes: usize = ready.iter().map(|queued| queued.frame.bytes()).sum();
        traffic.count(ready.len(), bytes);
        let (frames, room): (Vec<_>, Vec<_>) =
            ready.drain(..).map(|queued| (queued.frame, queued._room)).unzip();
        write_frames(&mut stream, &frames).await?;
        drop(room);
    }
    Ok(())
}

/// Reads one of the streams that the other side opens, into the inbox of its channel.
async fn read(
    connection: Connection,
    from: NodeId,
    session: u64,
    sinks: Sinks,
    gate: Gate,
) -> LinkError {
    let read = async {
        let mut stream = connection.accept_uni().await?;
        let channel = channel_of(&mut stream).await?;
        gate.opened().await;
        let sink = sinks.of(channel);
        let traffic = Traffic::received(from, channel);
        let limits = ReadLimits::of_a_server(PEER_FRAME_BYTES_MAX);
        let mut frames = FrameReader::new(stream, limits);
        while let Some((message, bytes)) = frames.next::<PeerMessage>().await? {
            traffic.count(1, bytes);
            sink.put(Received { from, session, message }, bytes, &gate).await?;
        }
        Ok::<_, FrameError>(())
    };
    match read.await {
        Ok(()) => LinkError::lost("the other side ended a stream"),
        Err(error) => error.into(),
    }
}

/// What a stream carries, by its first byte. That each comes once is up to the other side, which
/// is trusted to be a node of this cluster; the number of streams is limited.
async fn channel_of(stream: &mut RecvStream) -> Result<Channel, FrameError> {
    let mut tag = [0];
    stream.read_exact(&mut tag).await.map_err(LinkError::lost)?;
    let known = Channel::ALL.into_iter().find(|channel| channel.tag() == tag[0]);
    known.ok_or_else(|| {
        let detail = format!("a stream for channel {}", tag[0]);
        LinkError::closed(CloseCode::Malformed, detail).into()
    })
}
