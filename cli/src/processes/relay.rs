//! A relay for datagrams that delays them, and loses some: what a network between machines does.
//!
//! Who wants to reach a target sends to the relay's address for it. The target sees each sender
//! at an address of its own, and what it answers goes the same way back. Each way is delayed. It is
//! a process of its own, so that what it costs is told apart from what the cluster costs.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::failure::{Context, Failure, failed};

/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Most senders that one target is reached by.
const FLOWS_MAX: usize = 4_096;
/// Most bytes that are under way; what comes then is lost, as in a network that is overloaded.
const UNDER_WAY_BYTES_MAX: usize = 256 << 20;
/// Buffers that the system keeps for each socket, bytes: it may grant less.
const SOCKET_BYTES: usize = 4 << 20;

/// What a relay is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOptions {
    /// Where it listens, and for whom.
    pub links: Vec<Link>,
    /// How long each datagram is under way.
    pub delay: Duration,
    /// How many of a million are lost.
    pub loss_millionths: u32,
    /// Decides which.
    pub seed: u64,
}

/// An address by which a target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Where the relay listens.
    pub listen: SocketAddr,
    /// Who is reached.
    pub target: SocketAddr,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.listen, self.target)
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let addresses = text.split_once('=').and_then(|(listen, target)| {
            Some(Self { listen: listen.parse().ok()?, target: target.parse().ok()? })
        });
        addresses.ok_or_else(|| format!("{text:?} is not ADDRESS=ADDRESS"))
    }
}

/// A relay at work. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    listening: Vec<SocketAddr>,
    way: Arc<Way>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Starts a relay. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What could not be listened on.
    pub async fn start(options: &RelayOptions) -> Result<Self, Failure> {
        let way = Arc::new(Way::new(options));
        let releasing = way.clone();
        let thread = std::thread::Builder::new().name("relay-release".to_owned());
        thread.spawn(move || releasing.release_all()).context("the system gives no thread")?;
        let mut tasks = JoinSet::new();
        let mut listening = Vec::with_capacity(options.links.len());
        // ORDER: made before anything can fail, so that the thread ends with it.
        let mut relay = Self { listening: Vec::new(), way: way.clone(), _tasks: JoinSet::new() };
        for link in &options.links {
            let socket = Arc::new(bind(link.listen).await?);
            listening.push(socket.local_addr().context(link)?);
            tasks.spawn(forward(socket, link.target, way.clone()));
        }
        relay.listening = listening;
        relay._tasks = tasks;
        Ok(relay)
    }

    /// Where it listens, in the order of its links.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// How many datagrams it was handed, and how many of them it lost: by chance, or because too
    /// many were under way.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.way.taken.load(Ordering::Relaxed), self.way.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.way.lock().ended = true;
        self.way.changed.notify_all();
    }
}

/// A datagram on its way.
struct UnderWay {
    due: Instant,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Bytes,
}

#[derive(Default)]
struct Queue {
    datagrams: VecDeque<UnderWay>,
    bytes: usize,
    ended: bool,
}

/// All datagrams that are under way. Since all take equally long, the first is due first.
struct Way {
    delay: Duration,
    loss_millionths: u32,
    seed: u64,
    taken: AtomicU64,
    lost: AtomicU64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl Way {
    fn new(options: &RelayOptions) -> Self {
        Self {
            delay: options.delay,
            loss_millionths: options.loss_millionths,
            seed: options.seed,
            taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            queue: Mutex::new(Queue::default()),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a datagram along, or loses it.
    fn take(&self, socket: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if is_lost(self.seed, number, self.loss_millionths) {
            self.lose();
            return;
        }
        let mut queue = self.lock();
        if queue.bytes + bytes.len() > UNDER_WAY_BYTES_MAX {
            self.lose();
            return;
        }
        queue.bytes += bytes.len();
        let was_empty = queue.datagrams.is_empty();
        // ORDER: read under the lock, so that the queue is in the order of time.
        let due = Instant::now() + self.delay;
        let bytes = Bytes::copy_from_slice(bytes);
        queue.datagrams.push_back(UnderWay { due, socket: socket.clone(), to, bytes });
        drop(queue);
        if was_empty {
            self.changed.notify_one();
        }
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands over what is due, until the relay ends.
    fn release_all(&self) {
        let mut queue = self.lock();
        loop {
            if queue.ended {
                return;
            }
            let now = Instant::now();
            let wait =
                queue.datagrams.front().map(|first| first.due.saturating_duration_since(now));
            queue = match wait {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let due = queue.datagrams.partition_point(|datagram| datagram.due <= now);
                    let due: Vec<UnderWay> = queue.datagrams.drain(..due).collect();
                    queue.bytes -= due.iter().map(|datagram| datagram.bytes.len()).sum::<usize>();
                    drop(queue);
                    due.into_iter().for_each(|datagram| self.hand_over(&datagram));
                    self.lock()
                }
                Some(wait) => {
                    let waited = self.changed.wait_timeout(queue, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn hand_over(&self, UnderWay { socket, to, bytes, .. }: &UnderWay) {
        // A full buffer, or a target that is gone, loses it, as a network would.
        if socket.try_send_to(bytes, *to).is_err() {
            self.lose();
        }
    }
}

/// Whether the datagram of this number is lost.
fn is_lost(seed: u64, number: u64, loss_millionths: u32) -> bool {
    // SplitMix64: any two numbers draw independently of each other.
    let mut z = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % 1_000_000 < u64::from(loss_millionths)
}

async fn bind(address: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind(address).await.context(format!("can't listen on {address}"))?;
    let options = socket2::SockRef::from(&socket);
    for outcome in
        [options.set_recv_buffer_size(SOCKET_BYTES), options.set_send_buffer_size(SOCKET_BYTES)]
    {
        if let Err(error) = outcome {
            tracing::debug!(%error, "the relay keeps the system's buffers");
        }
    }
    Ok(socket)
}

/// Forwards what comes to `listener`, and what is answered.
async fn forward(listener: Arc<UdpSocket>, target: SocketAddr, way: Arc<Way>) {
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // Ended with this task.
    let mut answers = JoinSet::new();
    let mut buffer = BytesMut::zeroed(DATAGRAM_BYTES_MAX);
    loop {
        let Some((length, from)) = received(listener.recv_from(&mut buffer).await) else {
            continue;
        };
        let flow = match flows.get(&from) {
            Some(flow) => flow.clone(),
            None if flows.len() == FLOWS_MAX => {
                way.lose();
                continue;
            }
            None => match open_flow(&listener, target).await {
                Ok(flow) => {
                    let flow = Arc::new(flow);
                    answers.spawn(answer(flow.clone(), listener.clone(), from, way.clone()));
                    flows.insert(from, flow.clone());
                    flow
                }
                Err(error) => {
                    tracing::warn!(%error, "the relay can't take a sender");
                    way.lose();
                    continue;
                }
            },
        };
        way.take(&flow, target, &buffer[..length]);
    }
}

/// The socket by which a target sees one sender.
async fn open_flow(listener: &UdpSocket, target: SocketAddr) -> Result<UdpSocket, Failure> {
    let ip = match (listener.local_addr().map_err(failed)?.ip(), target.ip()) {
        // Of the same kind as the target.
        (ip, _) if ip.is_ipv4() == target.is_ipv4() => ip,
        (_, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (_, IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    bind((ip, 0).into()).await
}

/// Takes what a target answers back to the sender.
async fn answer(flow: Arc<UdpSocket>, listener: Arc<UdpSocket>, to: SocketAddr, way: Arc<Way>) {
    let mut buffer = BytesMut::zeroed(DATAGRAM_BYTES_MAX);
    loop {
        if let Some((length, _)) = received(flow.recv_from(&mut buffer).await) {
            way.take(&listener, to, &buffer[..length]);
        }
    }
}

/// What was received; nothing if it was news of an earlier datagram that did not arrive.
fn received(result: std::io::Result<(usize, SocketAddr)>) -> Option<(usize, SocketAddr)> {
    match result {
        Ok(received) => Some(received),
        Err(error) => {
            if error.kind() != ErrorKind::ConnectionRefused {
                tracing::debug!(%error, "the relay received nothing");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn relay(target: SocketAddr, delay_ms: u64, loss_millionths: u32) -> Relay {
        let links = vec![Link { listen: "127.0.0.1:0".parse().unwrap(), target }];
        let delay = Duration::from_millis(delay_ms);
        Relay::start(&RelayOptions { links, delay, loss_millionths, seed: 7 }).await.unwrap()
    }

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_ways_are_delayed_and_senders_are_told_apart() {
        let (target, address) = socket().await;
        let relay = relay(address, 30, 0).await;
        let (first, _) = socket().await;
        let (second, _) = socket().await;
        let started = Instant::now();
        let mut buffer = [0; 16];
        let mut seen = Vec::new();
        for (sender, text) in [(&first, "one"), (&second, "two")] {
            sender.send_to(text.as_bytes(), relay.listening()[0]).await.unwrap();
            let (length, from) = target.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text.as_bytes());
            seen.push(from);
        }
        assert_ne!(seen[0], seen[1]);
        assert!(started.elapsed() >= Duration::from_millis(60), "{:?}", started.elapsed());
        // In the other order, so that a mix-up shows.
        target.send_to(b"second", seen[1]).await.unwrap();
        target.send_to(b"first", seen[0]).await.unwrap();
        let length = first.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"first");
        let length = second.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"second");
        assert!(started.elapsed() >= Duration::from_millis(90), "{:?}", started.elapsed());
        assert_eq!(relay.counts(), (4, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn order_is_kept_and_as_many_are_lost_as_was_asked_for() {
        let (target, address) = socket().await;
        let relay = relay(address, 1, 100_000).await;
        let (sender, _) = socket().await;
        const SENT: u32 = 2_000;
        let collect = tokio::spawn(async move {
            let mut buffer = [0; 4];
            let mut numbers = Vec::new();
            let patience = Duration::from_secs(2);
            while let Ok(Ok(_)) = tokio::time::timeout(patience, target.recv(&mut buffer)).await {
                numbers.push(u32::from_be_bytes(buffer));
            }
            numbers
        });
        for number in 0..SENT {
            sender.send_to(&number.to_be_bytes(), relay.listening()[0]).await.unwrap();
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let numbers = collect.await.unwrap();
        assert!(numbers.is_sorted());
        let (taken, lost) = relay.counts();
        assert_eq!(numbers.len() as u64, taken - lost);
        assert!((120..=280).contains(&lost), "{lost} of {taken}");
    }

    #[test]
    fn losses_are_a_matter_of_seed_and_number() {
        let lost = |seed, loss| (0..100_000).filter(|number| is_lost(seed, *number, loss)).count();
        assert_eq!(lost(1, 0), 0);
        assert_eq!(lost(1, 1_000_000), 100_000);
        assert!((900..1_100).contains(&lost(1, 10_000)), "{}", lost(1, 10_000));
        assert!(
            (0..100_000).any(|number| is_lost(1, number, 10_000) != is_lost(2, number, 10_000))
        );
    }

    #[test]
    fn links_are_written_as_they_are_read() {
        let link: Link = "127.0.0.1:7=[::1]:8".parse().unwrap();
        assert_eq!(link.to_string().parse(), Ok(link));
        assert!("127.0.0.1:7".parse::<Link>().is_err());
    }
}
