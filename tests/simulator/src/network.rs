//! Links between nodes, and from clients to the sequencer.
//!
//! A link is as the transport promises: while a session is up, each channel hands on what was sent,
//! in order; when the session ends, what was on its way is lost; the two ends learn of it at
//! different times; then there is a new session. Between channels there is no order.
//!
//! What is decided here comes out as [`NetworkEvent`]s to be planned; the world hands on what
//! [`Network::take`] makes of each when it is due.

use std::collections::BTreeMap;

use bytes::Bytes;
use parsec_protocol::NodeId;
use parsec_protocol::transport::Channel;

use crate::agenda::{MILLISECOND, Micros, SECOND};
use crate::random::Random;

/// The two ends of a link, the lower id first.
pub(crate) type Pair = (NodeId, NodeId);

/// Something that a link brings about when it is due.
#[derive(Debug, Clone)]
pub(crate) enum NetworkEvent {
    /// The nodes try to reach each other.
    Connect(Pair),
    /// A session is up, as an end sees it.
    Up { pair: Pair, session: u64, end: usize },
    /// An end notices that a session is over.
    Down { pair: Pair, session: u64, end: usize },
    /// A message arrives at an end.
    Arrive { pair: Pair, session: u64, end: usize, channel: Channel, bytes: Bytes },
    /// A message arrives once more, on whatever session is up then.
    Repeat { pair: Pair, end: usize, channel: Channel, bytes: Bytes },
}

/// What a node sees of the network.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    Up { peer: NodeId, session: u64 },
    Down { peer: NodeId, session: u64 },
    Message { peer: NodeId, session: u64, channel: Channel, bytes: Bytes },
}

/// How the network behaves.
#[derive(Debug, Clone)]
pub(crate) struct NetworkOptions {
    /// The shortest and the longest time a message takes.
    pub(crate) delay: (Micros, Micros),
    /// Of a thousand messages, how many take a hundred times as long as the longest.
    pub(crate) stragglers: u64,
    /// Of a thousand messages that may be repeated, how many are.
    pub(crate) repeats: u64,
}

/// The longest time that an end takes to notice that a session is over, as a rule; of a thousand
/// ends, [`SLOW`] take up to ten times as long.
const NOTICE_MAX: Micros = 300 * MILLISECOND;
/// The longest pause before nodes try again to reach each other, as a rule.
const PAUSE_MAX: Micros = 200 * MILLISECOND;
/// Of a thousand, how many are slow.
const SLOW: u64 = 50;

#[derive(Debug, Default)]
struct Link {
    /// Nothing gets through.
    cut: bool,
    /// The session that carries messages.
    session: Option<u64>,
    ends: [End; 2],
}

#[derive(Debug, Default)]
struct End {
    /// The session that is up, as the end sees it.
    up: Option<u64>,
    /// When the session that carries messages is up here, at the earliest.
    from: Micros,
    /// When the last message to this end arrives, by channel.
    last: BTreeMap<Channel, Micros>,
    /// How many messages to this end are on their way, by channel.
    under_way: BTreeMap<Channel, usize>,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    options: NetworkOptions,
    links: BTreeMap<Pair, Link>,
    /// Nodes that are up.
    nodes: BTreeMap<NodeId, bool>,
    sessions: u64,
    /// What is to be planned.
    planned: Vec<(Micros, NetworkEvent)>,
    /// No more faults: sessions come up at once.
    calm: bool,
}

impl Network {
    pub(crate) fn new(options: NetworkOptions) -> Self {
        Self {
            options,
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            sessions: 0,
            planned: Vec::new(),
            calm: false,
        }
    }

    /// Adds a link between two nodes.
    pub(crate) fn link(&mut self, a: NodeId, b: NodeId) {
        let pair = (a.min(b), a.max(b));
        self.links.insert(pair, Link::default());
        self.planned.push((0, NetworkEvent::Connect(pair)));
    }

    /// All links.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.links.keys().copied()
    }

    /// What has been planned since, with the time from now.
    pub(crate) fn take_planned(&mut self) -> Vec<(Micros, NetworkEvent)> {
        std::mem::take(&mut self.planned)
    }

    /// From now on everything gets through, and nothing comes twice.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.options.stragglers = 0;
        self.options.repeats = 0;
        self.links.values_mut().for_each(|link| link.cut = false);
    }

    /// A node has started.
    pub(crate) fn start(&mut self, node: NodeId) {
        self.nodes.insert(node, true);
    }

    /// A node has ended, whatever it was doing. Its peers notice later.
    pub(crate) fn end(&mut self, node: NodeId, random: &mut Random) {
        self.nodes.insert(node, false);
        let own: Vec<Pair> =
            self.links.keys().copied().filter(|(a, b)| *a == node || *b == node).collect();
        for pair in own {
            self.break_off(pair, random);
            let end = usize::from(pair.1 == node);
            if let Some(link) = self.links.get_mut(&pair) {
                link.ends[end] = End::default();
            }
        }
    }

    /// Ends the session of a link, if there is one.
    pub(crate) fn break_off(&mut self, pair: Pair, random: &mut Random) {
        let Some(link) = self.links.get_mut(&pair) else { return };
        if link.session.take().is_none() {
            return;
        }
        for (end, state) in link.ends.iter_mut().enumerate() {
            state.under_way.clear();
            state.last.clear();
            if let Some(session) = state.up {
                let slower = if random.chance(SLOW) { 10 } else { 1 };
                let notice = random.magnitude(10, slower * NOTICE_MAX);
                self.planned.push((notice, NetworkEvent::Down { pair, session, end }));
            }
        }
        self.plan_connect(pair, random);
    }

    /// Cuts a link, or mends it.
    pub(crate) fn cut(&mut self, pair: Pair, cut: bool, random: &mut Random) {
        if let Some(link) = self.links.get_mut(&pair) {
            link.cut = cut;
        }
        if cut {
            self.break_off(pair, random);
        }
    }

    /// Sends a message; whether the session is still up as far as the sender knows.
    #[allow(clippy::too_many_arguments, reason = "a message has that many parts")]
    pub(crate) fn send(
        &mut self,
        now: Micros,
        (from, to): (NodeId, NodeId),
        session: u64,
        channel: Channel,
        bytes: Bytes,
        may_repeat: bool,
        random: &mut Random,
    ) -> bool {
        let pair = (from.min(to), from.max(to));
        let end = usize::from(pair.1 == to);
        let Some(link) = self.links.get_mut(&pair) else { return false };
        if link.ends[1 - end].up != Some(session) {
            return false;
        }
        if link.session != Some(session) {
            // It is over, and the sender does not know yet.
            return true;
        }
        let mut delay = random.between(self.options.delay.0, self.options.delay.1);
        if random.chance(self.options.stragglers) {
            delay *= random.between(2, 100);
        }
        let state = &mut link.ends[end];
        let last = state.last.get(&channel).copied().unwrap_or(0);
        let at = (now + delay).max(last).max(state.from);
        state.last.insert(channel, at);
        *state.under_way.entry(channel).or_default() += 1;
        if may_repeat && random.chance(self.options.repeats) {
            let again = NetworkEvent::Repeat { pair, end, channel, bytes: bytes.clone() };
            self.planned.push((at - now + random.magnitude(1, 2 * SECOND), again));
        }
        let arrive = NetworkEvent::Arrive { pair, session, end, channel, bytes };
        self.planned.push((at - now, arrive));
        true
    }

    /// How many messages to `to` are on their way from `from` on a channel.
    pub(crate) fn under_way(&self, from: NodeId, to: NodeId, channel: Channel) -> usize {
        let pair = (from.min(to), from.max(to));
        let end = usize::from(pair.1 == to);
        let link = self.links.get(&pair);
        link.and_then(|link| link.ends[end].under_way.get(&channel)).copied().unwrap_or(0)
    }

    /// What nodes see of an event that is due, in order: each with the node that sees it.
    pub(crate) fn take(
        &mut self,
        now: Micros,
        event: NetworkEvent,
        random: &mut Random,
    ) -> Vec<(NodeId, Seen)> {
        match event {
            NetworkEvent::Connect(pair) => {
                self.connect(now, pair, random);
                Vec::new()
            }
            NetworkEvent::Up { pair, session, end } => self.up(pair, session, end),
            NetworkEvent::Down { pair, session, end } => self.down(pair, session, end),
            NetworkEvent::Arrive { pair, session, end, channel, bytes } => {
                let Some(link) = self.links.get_mut(&pair) else { return Vec::new() };
                if link.session != Some(session) || link.ends[end].up != Some(session) {
                    return Vec::new();
                }
                if let Some(count) = link.ends[end].under_way.get_mut(&channel) {
                    *count = count.saturating_sub(1);
                }
                let (node, peer) = ends(pair, end);
                vec![(node, Seen::Message { peer, session, channel, bytes })]
            }
            NetworkEvent::Repeat { pair, end, channel, bytes } => {
                let link = self.links.get(&pair);
                let up = link.and_then(|link| link.ends[end].up.filter(|_| !self.calm));
                let (node, peer) = ends(pair, end);
                up.map(|session| (node, Seen::Message { peer, session, channel, bytes }))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn connect(&mut self, now: Micros, pair: Pair, random: &mut Random) {
        let is_up = |node: &NodeId| self.nodes.get(node).copied().unwrap_or(false);
        let both = is_up(&pair.0) && is_up(&pair.1);
        let Some(link) = self.links.get_mut(&pair) else { return };
        if link.session.is_some() {
            return;
        }
        if link.cut || !both {
            return self.plan_connect(pair, random);
        }
        self.sessions += 1;
        let session = self.sessions;
        link.session = Some(session);
        for end in [0, 1] {
            let delay = random.between(self.options.delay.0, self.options.delay.1);
            link.ends[end].from = now + delay;
            self.planned.push((delay, NetworkEvent::Up { pair, session, end }));
        }
    }

    fn plan_connect(&mut self, pair: Pair, random: &mut Random) {
        let slower = if random.chance(SLOW) && !self.calm { 10 } else { 1 };
        let pause = random.magnitude(MILLISECOND, slower * PAUSE_MAX);
        self.planned.push((pause, NetworkEvent::Connect(pair)));
    }

    fn up(&mut self, pair: Pair, session: u64, end: usize) -> Vec<(NodeId, Seen)> {
        let Some(link) = self.links.get_mut(&pair) else { return Vec::new() };
        if link.session != Some(session) {
            return Vec::new();
        }
        let (node, peer) = ends(pair, end);
        let old = link.ends[end].up.replace(session);
        let down = old.map(|session| (node, Seen::Down { peer, session }));
        down.into_iter().chain([(node, Seen::Up { peer, session })]).collect()
    }

    fn down(&mut self, pair: Pair, session: u64, end: usize) -> Vec<(NodeId, Seen)> {
        let Some(link) = self.links.get_mut(&pair) else { return Vec::new() };
        if link.ends[end].up != Some(session) {
            return Vec::new();
        }
        link.ends[end].up = None;
        let (node, peer) = ends(pair, end);
        vec![(node, Seen::Down { peer, session })]
    }
}

/// The node at an end, and the one at the other.
fn ends(pair: Pair, end: usize) -> (NodeId, NodeId) {
    if end == 0 { pair } else { (pair.1, pair.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::Agenda;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);

    struct Rig {
        network: Network,
        agenda: Agenda<NetworkEvent>,
        random: Random,
        now: Micros,
        seen: Vec<(NodeId, Seen)>,
    }

    impl Rig {
        fn new(seed: u64, repeats: u64) -> Self {
            let options = NetworkOptions { delay: (10, 500), stragglers: 20, repeats };
            let mut network = Network::new(options);
            network.link(A, B);
            network.start(A);
            network.start(B);
            let random = Random::new(seed, 0);
            Self { network, agenda: Agenda::new(), random, now: 0, seen: Vec::new() }
        }

        fn run_until(&mut self, until: Micros) {
            loop {
                for (delay, event) in self.network.take_planned() {
                    self.agenda.plan(self.now + delay, event);
                }
                match self.agenda.next() {
                    Some((at, event)) if at <= until => {
                        self.now = at;
                        self.seen.extend(self.network.take(at, event, &mut self.random));
                    }
                    Some((at, event)) => return self.agenda.plan(at, event),
                    None => return,
                }
            }
        }

        fn session(&self, node: NodeId) -> Option<u64> {
            self.seen.iter().rev().find_map(|(at, seen)| match seen {
                Seen::Up { session, .. } if *at == node => Some(*session),
                _ => None,
            })
        }

        fn send(&mut self, number: u8, channel: Channel) -> bool {
            let session = self.session(A).unwrap_or(0);
            let bytes = Bytes::from(vec![number]);
            let (now, random) = (self.now, &mut self.random);
            self.network.send(now, (A, B), session, channel, bytes, true, random)
        }

        fn arrived(&self, channel: Channel) -> Vec<u8> {
            let arrived = self.seen.iter().filter_map(|(_, seen)| match seen {
                Seen::Message { channel: on, bytes, .. } if *on == channel => Some(bytes[0]),
                _ => None,
            });
            arrived.collect()
        }
    }

    #[test]
    fn a_channel_keeps_its_order_and_nothing_comes_before_its_session() {
        for seed in 0..50 {
            let mut rig = Rig::new(seed, 0);
            rig.run_until(10_000);
            for number in 0..100 {
                assert!(rig.send(number, Channel::Order));
                assert!(rig.send(number, Channel::Query));
            }
            rig.run_until(SECOND);
            assert_eq!(rig.arrived(Channel::Order), (0..100).collect::<Vec<_>>());
            assert_eq!(rig.arrived(Channel::Query), (0..100).collect::<Vec<_>>());
            let up = rig.seen.iter().position(|(node, _)| *node == B).unwrap();
            assert!(matches!(rig.seen[up].1, Seen::Up { .. }));
        }
    }

    #[test]
    fn a_broken_session_loses_a_suffix_and_is_followed_by_another() {
        let mut lost_some = false;
        for seed in 0..50 {
            let mut rig = Rig::new(seed, 0);
            rig.run_until(10_000);
            (0..100).for_each(|number| assert!(rig.send(number, Channel::Order)));
            rig.run_until(10_000 + seed * 10);
            let first = rig.session(A);
            rig.network.break_off((A, B), &mut rig.random);
            rig.run_until(60 * SECOND);
            let arrived = rig.arrived(Channel::Order);
            assert!(arrived.iter().copied().eq(0..u8::try_from(arrived.len()).unwrap()));
            lost_some |= arrived.len() < 100;
            assert_ne!(rig.session(A), first);
            let downs = rig.seen.iter().filter(|(_, seen)| matches!(seen, Seen::Down { .. }));
            assert_eq!(downs.count(), 2);
        }
        assert!(lost_some);
    }

    #[test]
    fn nothing_gets_through_while_a_link_is_cut() {
        let mut rig = Rig::new(1, 0);
        rig.run_until(10_000);
        rig.network.cut((A, B), true, &mut rig.random);
        rig.run_until(30 * SECOND);
        assert!(!rig.send(1, Channel::Order));
        rig.network.heal();
        rig.run_until(60 * SECOND);
        assert!(rig.send(2, Channel::Order));
        rig.run_until(61 * SECOND);
        assert_eq!(rig.arrived(Channel::Order), [2]);
    }

    #[test]
    fn what_may_be_repeated_is() {
        let mut rig = Rig::new(3, 1_000);
        rig.run_until(10_000);
        assert!(rig.send(7, Channel::Order));
        rig.run_until(10 * SECOND);
        assert_eq!(rig.arrived(Channel::Order), [7, 7]);
    }
}
