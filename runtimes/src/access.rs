//! The two ways in which a transaction sees the state: a [`Workspace`] that holds it to its
//! footprint, and a [`Recorder`] that finds the footprint out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use parsec_protocol::limits::FOOTPRINT_KEYS_MAX;
use parsec_protocol::plant::{self, Bug};
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    Access, Change, Delta, EpochRecord, ErrorCode, Footprint, Key, Mode, Outcome, Position,
    Receipt, Value,
};

use crate::{Call, Done, Interrupt, Sessions, State};

/// What a transaction did: a change for each access of its footprint, in the same order, and the
/// receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// One for each access of the footprint.
    pub changes: Vec<Change>,
    /// What became of the transaction.
    pub receipt: Receipt,
}

impl Execution {
    /// Executes an entry at its position, over the values of its footprint.
    ///
    /// This is the one way in which an ordered transaction takes effect: it has none if it came too
    /// late or strays. (The serial oracle has the same rules a second time, to check this.)
    ///
    /// # Errors
    /// Why this host must stop.
    pub fn run(
        sessions: &mut Sessions,
        entry: &Entry,
        epoch: &EpochRecord,
        entropy: &[u8; 32],
        index: u32,
        values: &[Option<Value>],
    ) -> Result<Self, String> {
        let mut workspace = Workspace::new(&entry.footprint, values);
        let call = Call {
            id: &entry.id,
            sender: &entry.sender,
            payload: &entry.payload,
            epoch,
            entropy,
            trial: false,
        };
        let late = entry.expires.is_some_and(|last| epoch.number > last);
        let result = match late {
            true => Ok(Done::invalid(ErrorCode::Expired, "")),
            false => sessions.execute(entry.runtime, &call, &mut workspace),
        };
        let done = match result {
            Ok(done) => done,
            Err(Interrupt::Stray(Access { key, mode })) => {
                if !plant::is(Bug::StrayKeepsEffects) {
                    workspace.forget();
                }
                Done {
                    outcome: Outcome::Strayed { key, mode },
                    work: 0,
                    output: Bytes::new(),
                    events: Vec::new(),
                }
            }
            Err(Interrupt::Missing(key)) => return Err(format!("no value was given for {key}")),
            Err(Interrupt::Fatal(reason)) => return Err(reason),
        };
        if matches!(done.outcome, Outcome::Invalid(_)) {
            workspace.forget();
        }
        let receipt = Receipt {
            id: entry.id,
            position: Position { epoch: epoch.number, index },
            attempt: entry.attempt,
            outcome: done.outcome,
            work: done.work,
            output: parsec_protocol::message::short_output(&done.output),
            events: done.events,
        };
        Ok(Self { changes: workspace.changes, receipt })
    }
}

/// The state within a footprint. Everything outside is a stray.
pub struct Workspace<'a> {
    footprint: &'a Footprint,
    values: &'a [Option<Value>],
    changes: Vec<Change>,
    /// The index after that of the last access: what is touched in order is found at once.
    next: usize,
}

impl<'a> Workspace<'a> {
    /// The state within `footprint`, with a value for each of its accesses (none is looked at for
    /// those that only add).
    ///
    /// # Panics
    /// If there are not as many values as accesses.
    #[must_use]
    pub fn new(footprint: &'a Footprint, values: &'a [Option<Value>]) -> Self {
        assert_eq!(footprint.accesses().len(), values.len(), "one value for each access");
        let changes = std::iter::repeat_with(|| Change::Keep).take(values.len()).collect();
        Self { footprint, values, changes, next: 0 }
    }

    /// Undoes all changes.
    fn forget(&mut self) {
        self.changes.fill(Change::Keep);
    }

    fn index(&mut self, key: &Key, mode: Mode) -> Result<usize, Interrupt> {
        let stray = || Interrupt::Stray(Access { key: key.clone(), mode });
        let accesses = self.footprint.accesses();
        let index = match accesses.get(self.next) {
            Some(access) if access.key == *key => self.next,
            _ => self.footprint.find(key).ok_or_else(stray)?,
        };
        self.next = index + 1;
        let allowed = accesses[index].mode;
        if allowed == mode || allowed == Mode::Write { Ok(index) } else { Err(stray()) }
    }
}

impl State for Workspace<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        let index = self.index(key, Mode::Read)?;
        Ok(self.changes[index].apply(self.values[index].as_ref()))
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        let index = self.index(key, Mode::Write)?;
        self.changes[index] = value.map_or(Change::Delete, Change::Put);
        Ok(())
    }

    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        let index = self.index(key, Mode::Add)?;
        self.changes[index] = combine(&self.changes[index], delta);
        Ok(())
    }

    fn covers(&self, key: &Key, mode: Mode) -> bool {
        self.footprint.covers(key, mode)
    }
}

/// The change that is `earlier` and then an addition.
pub(crate) fn combine(earlier: &Change, delta: Delta) -> Change {
    match earlier {
        Change::Keep => Change::Add(delta),
        Change::Add(sum) => Change::Add(sum.plus(delta)),
        Change::Put(_) | Change::Delete => {
            delta.apply(earlier.apply(None).as_ref()).map_or(Change::Delete, Change::Put)
        }
    }
}

/// Values that a [`Recorder`] may read: a snapshot, or what has been fetched of one.
pub trait Source {
    /// The value of `key`; the outer `None` if it is not at hand.
    fn value(&self, key: &Key) -> Option<Option<Value>>;

    /// How many transactions on their way, which the values here do not show yet, count `key` up
    /// ([`Declared::Counting`](crate::Declared::Counting)), as far as is known.
    fn ahead(&self, key: &Key) -> Ahead {
        let _ = key;
        Ahead::default()
    }
}

/// How many come before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// So many are sure to take effect.
    pub least: u32,
    /// So many will, if none strays.
    pub most: u32,
}

impl Source for BTreeMap<Key, Option<Value>> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        self.get(key).cloned()
    }
}

/// What a [`Recorder`] saw a call do.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What it touched, and how.
    pub footprint: Footprint,
    /// What it changed.
    pub changes: Vec<(Key, Change)>,
}

/// What stands for a value that is not at hand, while a trial goes on to see what else it needs.
pub type Guess<'a> = &'a dyn Fn(&Key) -> Option<Value>;

/// How a [`Recorder`] goes on without values that are not at hand.
struct Speculation<'a> {
    guess: Guess<'a>,
    /// What was guessed.
    missing: BTreeSet<Key>,
    missing_max: usize,
}

/// The state for a trial run: anything may be touched, nothing takes effect, and what was touched
/// is the footprint.
///
/// Without speculation, a trial ends at the first value that is not at hand. With it, it goes on
/// with a guess and takes down what was [`missing`](Recorder::missing), so that all of it can be
/// fetched at once. **Invariant:** a recording is that of a real run only if nothing was missing.
pub struct Recorder<'a, S: ?Sized> {
    source: &'a S,
    touched: BTreeMap<Key, (Mode, Change)>,
    speculation: Option<Speculation<'a>>,
    is_overfull: bool,
}

impl<'a, S: Source + ?Sized> Recorder<'a, S> {
    /// A recorder over `source`.
    #[must_use]
    pub fn new(source: &'a S) -> Self {
        Self { source, touched: BTreeMap::new(), speculation: None, is_overfull: false }
    }

    /// A recorder over `source` that goes on with what `guess` says where a value is not at hand,
    /// until `missing_max` of them are missing.
    #[must_use]
    pub fn speculating(source: &'a S, guess: Guess<'a>, missing_max: usize) -> Self {
        let speculation = Some(Speculation { guess, missing: BTreeSet::new(), missing_max });
        Self { source, touched: BTreeMap::new(), speculation, is_overfull: false }
    }

    /// Takes the keys whose values were guessed so far.
    pub fn missing(&mut self) -> BTreeSet<Key> {
        self.speculation.as_mut().map(|s| std::mem::take(&mut s.missing)).unwrap_or_default()
    }

    /// Whether the run was ended because it would touch more keys than a footprint may have.
    #[must_use]
    pub fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    /// What was touched and changed.
    ///
    /// # Errors
    /// If more keys were touched than a footprint may have.
    pub fn finish(self) -> Result<Recording, parsec_protocol::Malformed> {
        let accesses =
            self.touched.iter().map(|(key, (mode, _))| Access { key: key.clone(), mode: *mode });
        let footprint = Footprint::new(accesses.collect())?;
        let changed = self.touched.into_iter().filter(|(_, (_, change))| *change != Change::Keep);
        Ok(Recording { footprint, changes: changed.map(|(key, (_, c))| (key, c)).collect() })
    }

    fn touch(&mut self, key: &Key, mode: Mode) -> Result<&mut Change, Interrupt> {
        if self.touched.len() >= FOOTPRINT_KEYS_MAX && !self.touched.contains_key(key) {
            self.is_overfull = true;
            return Err(Interrupt::Fatal(format!("more than {FOOTPRINT_KEYS_MAX} keys")));
        }
        let (known, change) = self.touched.entry(key.clone()).or_insert((mode, Change::Keep));
        *known = known.union(mode);
        Ok(change)
    }

    /// The value of a key that is not at hand.
    fn guess(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        let missing = || Interrupt::Missing(key.clone());
        let speculation = self.speculation.as_mut().ok_or_else(missing)?;
        if speculation.missing.insert(key.clone())
            && speculation.missing.len() >= speculation.missing_max
        {
            return Err(missing());
        }
        Ok((speculation.guess)(key))
    }
}

impl<S: Source + ?Sized> State for Recorder<'_, S> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>, Interrupt> {
        // What was overwritten needs no value.
        if let Some((_, change @ (Change::Put(_) | Change::Delete))) = self.touched.get(key) {
            return Ok(change.apply(None));
        }
        // ORDER: before a guess, which counts as missing only if the key fits the footprint.
        self.touch(key, Mode::Read)?;
        let value = match self.source.value(key) {
            Some(value) => value,
            None => self.guess(key)?,
        };
        Ok(self.touch(key, Mode::Read)?.apply(value.as_ref()))
    }

    fn put(&mut self, key: &Key, value: Option<Value>) -> Result<(), Interrupt> {
        *self.touch(key, Mode::Write)? = value.map_or(Change::Delete, Change::Put);
        Ok(())
    }

    fn add(&mut self, key: &Key, delta: Delta) -> Result<(), Interrupt> {
        let change = self.touch(key, Mode::Add)?;
        *change = combine(change, delta);
        Ok(())
    }

    fn covers(&self, key: &Key, mode: Mode) -> bool {
        self.touched.get(key).is_some_and(|(known, _)| *known == mode || *known == Mode::Write)
    }
}
