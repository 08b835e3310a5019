//! The world around a sequencer: the network, its hosts and clients, and what has to be true of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::{
    Access, EpochNumber, ErrorCode, Footprint, Mode, Outcome, PartitionId, Position, Receipt,
    RuntimeId, TxId,
};
use parsec_sequencer_core::{
    Accepted, Candidate, CutEpoch, Cutter, LaneOptions, Layout, Lookup, Output, Place, Refused,
    Step, Tick, Token, Word, word,
};

use crate::Op;
use crate::disk::{Index, Log, LogCommand, Record};
use crate::host::{Host, Strays, execute, key};
use crate::process::{LANE, Link, Process, Reader, layout, map, options, start};

pub(crate) struct World {
    strays: Strays,
    options: LaneOptions,
    cutter: Cutter,
    layout: Arc<Layout>,
    now: Tick,
    disk: Log,
    index: Index,
    process: Process,
    hosts: Vec<Host>,
    links: Vec<Link>,
    sessions: u64,
    tokens: u64,
    lookups: BTreeMap<u8, Lookup>,
    /// Tokens to be answered, and the id that each is for.
    waiting: BTreeMap<Token, TxId>,
    answered: BTreeMap<TxId, Receipt>,
    /// Every id that was accepted, of which the log may have lost those that were never answered.
    accepted: BTreeSet<u8>,
}

fn id(number: u8) -> TxId {
    TxId([number; 32])
}

impl World {
    pub(crate) fn new(strays: Strays) -> Self {
        let (options, layout) = (options(), layout());
        let (disk, mut index) = (Log::default(), Index::default());
        let process = start(&options, &layout, &disk, &mut index);
        Self {
            strays,
            options,
            cutter: Cutter::new(LANE, map(), layout.clone()),
            now: Tick(1_000_000),
            disk,
            index,
            process,
            hosts: layout.hosts().iter().map(|h| Host::new(h.host, &h.partitions)).collect(),
            links: layout.hosts().iter().map(|_| Link::default()).collect(),
            layout,
            sessions: 0,
            tokens: 0,
            lookups: BTreeMap::new(),
            waiting: BTreeMap::new(),
            answered: BTreeMap::new(),
            accepted: BTreeSet::new(),
        }
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match *op {
            Op::Submit { id, expires, stale } => self.submit(id, expires, stale),
            Op::LookUp { id: number } => {
                self.lookups.insert(number, self.index.look_up(id(number)));
            }
            Op::Log { count } => (0..count).for_each(|_| self.log()),
            Op::Cut => self.cut(),
            Op::Send { host, count } => (0..count).for_each(|_| self.send(host)),
            Op::ToHost { host, count } => (0..count).for_each(|_| self.deliver_to(host)),
            Op::FromHost { host, count } => (0..count).for_each(|_| self.deliver_from(host)),
            Op::LinkEvent { host } => self.link_event(host),
            Op::LinkDown { host } => self.link_down(host),
            Op::LinkUp { host, replaces } => self.link_up(host, replaces),
            Op::SendFails { host } => self.links[host].fails = self.links[host].session,
            Op::Apply { host, partition } => {
                let receipts = self.hosts[host].apply(partition, &self.strays);
                self.say(host, receipts);
                self.links[host].say(self.hosts[host].progress());
            }
            Op::SyncHost { host } => self.hosts[host].sync(),
            Op::CrashHost { host, keep, wiped } => {
                self.link_down(host);
                self.hosts[host].crash(keep, wiped);
            }
            Op::Discover { pick, fails } => self.discover(pick, fails),
            Op::WriteIndex => self.write_index(),
            Op::IndexWritten => {
                if let Some(mark) = self.process.writing.take() {
                    self.process.indexing.on_written(mark);
                }
            }
            Op::Wait { micros } => self.now = self.now.after(micros),
            Op::Crash { log, index } => self.crash(log, index),
        }
        self.turn();
    }

    fn turn(&mut self) {
        let process = &mut self.process;
        process.orderer.on_durable(process.durability.durable());
        process.orderer.on_applied(process.followers.applied_by_all());
        process.orderer.on_indexed(process.indexing.told());
        process.orderer.advance(self.now);
        while let Some(output) = self.process.orderer.poll_output() {
            match output {
                Output::Append { batch, .. } => self.command(Record::Batch(batch)),
                Output::AppendEpoch(record) => self.command(Record::Epoch(record)),
                Output::Sync => self.process.log.push_back(LogCommand::Sync),
                Output::Dispatch { record, batches } => {
                    self.process.dispatch.push_back((record, batches));
                }
                Output::Reply { token, receipt } => {
                    self.reply(token, Arc::unwrap_or_clone(receipt))
                }
                Output::Rediscover(strays) => self.process.rediscoveries.extend(strays),
                Output::Summarize { .. } => unreachable!("no lane here has a summary key"),
            }
        }
    }

    fn command(&mut self, record: Record) {
        self.process.log.push_back(LogCommand::Append(record));
    }

    fn submit(&mut self, number: u8, expires: Option<u8>, stale: bool) {
        let old = self.lookups.remove(&number).filter(|_| stale);
        let mut lookup = old.unwrap_or_else(|| self.index.look_up(id(number)));
        let keys = [number, number / 3, 100 + number % 2];
        let accesses = keys.map(|n| Access { key: key(n), mode: Mode::Write });
        self.tokens += 1;
        let token = Token { connection: 1, request: self.tokens, index: 0 };
        loop {
            let candidate = Candidate {
                id: id(number),
                runtime: RuntimeId::NATIVE,
                sender: vec![number].into(),
                payload: vec![number; 5].into(),
                footprint: Footprint::new(accesses[..1 + usize::from(number % 3)].to_vec())
                    .unwrap(),
                expires: expires.map(|last| EpochNumber(last.into())),
                renews: false,
            };
            match self.process.orderer.submit(candidate, lookup, Some(token)) {
                Ok(Accepted::Queued | Accepted::Attached) => {
                    self.accepted.insert(number);
                    self.waiting.insert(token, id(number));
                }
                Ok(Accepted::Known(place)) => self.fetch(id(number), place),
                Err(Refused::LookupTooOld) => {
                    assert!(stale, "the lookup was made a moment ago");
                    lookup = self.index.look_up(id(number));
                    continue;
                }
                Err(Refused::Expired) => assert!(expires.is_some()),
                Err(Refused::Busy) => {}
            }
            return;
        }
    }

    /// What a client gets that asks for the receipt at a place: it has to be the final one.
    fn fetch(&mut self, id: TxId, place: Place) {
        let entries = self.disk.entries(self.disk.synced);
        let entry = entries.get(&place.position).expect("known, so it is durable");
        assert_eq!((entry.id, entry.home), (id, place.home), "another transaction's place");
        let receipt = execute(&self.strays, entry, place.position);
        let Word::Final(receipt) = word(receipt.into()) else { panic!("known, but not finished") };
        self.check_answer(id, Arc::unwrap_or_clone(receipt));
    }

    fn reply(&mut self, token: Token, receipt: Receipt) {
        let id = self.waiting.remove(&token).expect("answered once, and only if accepted");
        let entries = self.disk.entries(self.disk.synced);
        let entry = entries.get(&receipt.position).expect("answered, so it is durable");
        let Word::Final(recorded) = word(execute(&self.strays, entry, receipt.position).into())
        else {
            panic!("answered, but not finished");
        };
        assert_eq!(receipt, *recorded);
        self.check_answer(id, receipt);
    }

    fn check_answer(&mut self, id: TxId, receipt: Receipt) {
        assert_eq!(receipt.id, id);
        let first = self.answered.entry(id).or_insert_with(|| receipt.clone());
        assert_eq!(*first, receipt, "another answer than before");
    }

    fn log(&mut self) {
        match self.process.log.pop_front() {
            Some(LogCommand::Append(record)) => {
                if let Record::Epoch(record) = &record {
                    self.process.durability.on_appended(record.number);
                }
                self.disk.records.push(record);
            }
            Some(LogCommand::Sync) => {
                self.disk.synced = self.disk.records.len();
                self.process.durability.on_synced();
            }
            None => {}
        }
    }

    fn cut(&mut self) {
        let Some((record, batches)) = self.process.dispatch.pop_front() else { return };
        self.process.followers.on_ordered(self.cutter.cut(&record, &batches));
        self.process.indexing.on_durable(&record, &batches);
    }

    /// The sender of a host takes a step.
    fn send(&mut self, host: usize) {
        let node = self.hosts[host].node;
        if self.process.readers[host].is_some() {
            return self.send_from_log(host);
        }
        match self.process.followers.next(node) {
            Some(Step::Send { session, epoch }) => {
                self.transmit(host, session, &epoch);
            }
            Some(Step::ReadLog { session, from }) => {
                let ahead = VecDeque::new();
                self.process.readers[host] =
                    Some(Reader { session, next: from, ahead, ended: false });
            }
            None => {}
        }
    }

    fn send_from_log(&mut self, host: usize) {
        let node = self.hosts[host].node;
        let Some(reader) = self.process.readers[host].as_mut() else { return };
        // Reading is ahead of sending by an epoch or two, and sees what is not durable yet.
        let (epochs, _) = self.disk.read(self.disk.records.len());
        while !reader.ended && reader.ahead.len() < 2 {
            let next = epochs.iter().find(|(record, _)| record.number == reader.next);
            let taken = next.filter(|(record, _)| {
                self.process.followers.take_from_log(node, reader.session, record.number)
            });
            match taken {
                Some((record, batches)) => {
                    reader.ahead.push_back(self.cutter.cut(record, batches));
                    reader.next = reader.next.next();
                }
                None => reader.ended = true,
            }
        }
        let session = reader.session;
        let epoch = reader.ahead.pop_front();
        let is_over = reader.ended && reader.ahead.is_empty();
        let sent = epoch.is_none_or(|epoch| self.transmit(host, session, &epoch));
        if is_over || !sent {
            self.process.readers[host] = None;
        }
    }

    fn transmit(&mut self, host: usize, session: u64, epoch: &CutEpoch) -> bool {
        let (durable, _) = self.disk.read(self.disk.synced);
        assert!(
            durable.iter().any(|(record, _)| record.number == epoch.number()),
            "sent before it was durable"
        );
        let link = &mut self.links[host];
        if link.session != Some(session) || link.fails == Some(session) {
            if link.session == Some(session) {
                link.to_host.extend(epoch.messages(host).take(1).cloned());
                (link.fails, link.doomed) = (None, Some(session));
            }
            self.process.followers.on_send_failed(self.hosts[host].node, session);
            return false;
        }
        link.to_host.extend(epoch.messages(host).cloned());
        true
    }

    fn deliver_to(&mut self, host: usize) {
        let Some(message) = self.links[host].to_host.pop_front() else { return };
        let receipts = self.hosts[host].on_message(message);
        self.say(host, receipts);
    }

    fn say(&mut self, host: usize, receipts: Vec<(PartitionId, Receipt)>) {
        for (partition, receipt) in receipts {
            self.links[host]
                .say(PeerMessage::Receipts { partition, receipts: vec![receipt.into()] });
        }
    }

    fn deliver_from(&mut self, host: usize) {
        let link = &mut self.links[host];
        // Messages of a session come after the news that it is up.
        let Some(session) = link.session.filter(|session| link.open == Some(*session)) else {
            return;
        };
        let node = self.hosts[host].node;
        match link.from_host.pop_front() {
            Some(PeerMessage::Progress(statuses)) => {
                self.process.followers.on_progress(node, session, &statuses).unwrap();
            }
            Some(PeerMessage::Receipts { receipts, .. }) => {
                receipts.into_iter().for_each(|r| self.process.orderer.on_receipt(r));
            }
            Some(other) => panic!("{other:?} is not for a sequencer"),
            None => {}
        }
    }

    fn link_down(&mut self, host: usize) {
        let link = &mut self.links[host];
        if let Some(session) = link.session.take() {
            link.to_host.clear();
            link.from_host.clear();
            link.events.push_back((session, false));
        }
    }

    fn link_up(&mut self, host: usize, replaces: bool) {
        if self.links[host].session.is_some() && !replaces {
            return;
        }
        self.sessions += 1;
        let link = &mut self.links[host];
        link.to_host.clear();
        link.from_host.clear();
        link.events.push_back((self.sessions, true));
        let replaced = link.session.replace(self.sessions);
        link.events.extend(replaced.map(|session| (session, false)));
        self.hosts[host].on_link_up();
        link.say(self.hosts[host].progress());
    }

    fn link_event(&mut self, host: usize) {
        let node = self.hosts[host].node;
        let settled = self.process.orderer.lane().settled();
        let link = &mut self.links[host];
        match link.events.pop_front() {
            Some((session, true)) => {
                link.open = Some(session);
                let message = self.process.followers.on_link_up(node, session, settled).unwrap();
                if link.session == Some(session) {
                    link.to_host.push_back(message);
                }
            }
            Some((session, false)) => {
                link.open = link.open.filter(|open| *open != session);
                self.process.followers.on_link_down(node, session);
            }
            None => {}
        }
    }

    fn discover(&mut self, pick: usize, fails: bool) {
        if self.process.rediscoveries.is_empty() {
            return;
        }
        let pick = pick % self.process.rediscoveries.len();
        let chosen = self.process.rediscoveries.swap_remove(pick);
        let wider = vec![Access { key: key(150 + chosen.attempt), mode: Mode::Read }];
        let found = match fails {
            true => Err(ErrorCode::TooLarge),
            false => Ok(Footprint::new(wider).unwrap()),
        };
        self.process.orderer.on_discovered(chosen.entry.id, chosen.attempt, found);
    }

    fn write_index(&mut self) {
        if self.process.writing.is_some() {
            return;
        }
        let settled = self.process.orderer.lane().settled();
        if let Some(write) = self.process.indexing.write(settled) {
            self.process.writing = Some(write.mark);
            self.index.writes.push(write);
            self.check_mark();
        }
        assert!(self.process.indexing.told() <= self.index.mark().through);
    }

    /// What the index's mark says has to be true of the log, the index and the hosts.
    fn check_mark(&self) {
        let mark = self.index.mark();
        let entries = self.disk.entries(self.disk.synced);
        let until = entries.range(..Position { epoch: mark.through.next(), index: 0 });
        assert_eq!(until.clone().count() as u64, mark.transactions);
        let last: BTreeMap<_, _> = until.map(|(at, entry)| (entry.id, *at)).collect();
        for (id, position) in last {
            let place = self.index.look_up(id).found.expect("it is ordered through the mark");
            assert_eq!(place.position, position);
        }
        let settled = entries.range(..Position { epoch: mark.settled.next(), index: 0 });
        for (position, entry) in settled {
            let again = entries.iter().any(|(at, other)| other.id == entry.id && at > position);
            let receipt = word(execute(&self.strays, entry, *position).into());
            assert!(again || matches!(receipt, Word::Final(_)), "settled, but neither is true");
        }
    }

    /// The sequencer dies. The disk keeps what was synced, and perhaps more of the log; of the
    /// index, everything but the last `index` writes.
    fn crash(&mut self, log: usize, index: usize) {
        self.disk.records.truncate(self.disk.synced + log);
        self.disk.synced = self.disk.records.len();
        self.index.writes.truncate(self.index.writes.len().saturating_sub(index));
        self.waiting.clear();
        self.lookups.clear();
        for host in 0..self.hosts.len() {
            self.link_down(host);
            self.links[host] = Link::default();
        }
        self.process = start(&self.options, &self.layout, &self.disk, &mut self.index);
        self.check_mark();
        let entries = self.disk.entries(self.disk.synced);
        for (id, receipt) in &self.answered {
            assert_eq!(entries[&receipt.position].id, *id, "it was answered, and is gone");
        }
    }

    /// Nothing bad happens any more: everything has to come to an end.
    pub(crate) fn settle(&mut self) {
        self.come_to_rest();
        self.check_log();
        // Whoever asks again now is answered, exactly once, and as before.
        for number in std::mem::take(&mut self.accepted) {
            let known = self.process.orderer.lane().ordered();
            let was_answered = self.answered.contains_key(&id(number));
            self.step(&Op::Submit { id: number, expires: None, stale: false });
            self.come_to_rest();
            assert!(self.answered.contains_key(&id(number)), "it was asked for");
            let ordered_anew = self.process.orderer.lane().ordered() > known;
            assert!(!(was_answered && ordered_anew), "it was answered, and ordered again");
        }
        self.check_log();
    }

    fn come_to_rest(&mut self) {
        for _ in 0..3_000 {
            if self.is_quiet() {
                break;
            }
            self.go_on();
        }
        assert_eq!(self.waiting, BTreeMap::new(), "accepted and never answered");
        let lane = self.process.orderer.lane();
        assert_eq!((lane.pending(), lane.in_flight(), lane.retained()), (0, 0, 0));
        let ordered = lane.ordered();
        assert_eq!(lane.settled(), ordered);
        assert_eq!(self.process.followers.applied_by_all(), ordered);
        assert!(self.hosts.iter().all(|host| host.applied() == ordered));
    }

    /// Everyone takes a step.
    fn go_on(&mut self) {
        self.now = self.now.after(2_000);
        self.step(&Op::Log { count: 3 });
        self.step(&Op::Cut);
        self.step(&Op::Discover { pick: 0, fails: false });
        self.step(&Op::WriteIndex);
        self.step(&Op::IndexWritten);
        for host in 0..self.hosts.len() {
            if self.links[host].session == self.links[host].doomed {
                self.link_down(host);
            }
            self.step(&Op::LinkUp { host, replaces: false });
            self.step(&Op::LinkEvent { host });
            self.step(&Op::Send { host, count: 3 });
            self.step(&Op::ToHost { host, count: 30 });
            (0..2).for_each(|partition| self.step(&Op::Apply { host, partition }));
            self.step(&Op::FromHost { host, count: 30 });
        }
    }

    fn check_log(&self) {
        let entries = self.disk.entries(self.disk.synced);
        let attempts: BTreeSet<_> = entries.values().map(|e| (e.id, e.attempt)).collect();
        assert_eq!(attempts.len(), entries.len(), "an attempt was ordered twice");
        for entry in entries.values() {
            assert!(self.hosts.iter().any(|host| host.has(entry.id)), "ordered, never finished");
        }
        for receipt in self.answered.values() {
            let finals = entries.iter().filter(|(position, entry)| {
                let Word::Final(other) = word(execute(&self.strays, entry, **position).into())
                else {
                    return false;
                };
                other.id == receipt.id
            });
            assert_eq!(finals.count(), 1, "it took effect twice");
            assert!(
                receipt.outcome == Outcome::Committed
                    || receipt.outcome == Outcome::Invalid(ErrorCode::StrayedTooOften)
            );
        }
    }

    fn is_quiet(&self) -> bool {
        let lane = self.process.orderer.lane();
        let idle = lane.pending() + lane.in_flight() + lane.retained() == 0;
        idle && self.process.followers.applied_by_all() == lane.ordered()
            && self.hosts.iter().all(|host| host.applied() == lane.ordered())
            && self.process.dispatch.is_empty()
    }
}
