//! Footprints that rows tell, without a trial.

use parsec_protocol::{Access, Footprint, Key, Mode, Value};

use super::super::access;
use super::rows::Row;
use crate::Declared;
use crate::access::Source;

/// What a call touches, as far as the rows at hand tell it.
pub(super) struct Told<'a> {
    source: &'a dyn Source,
    accesses: Vec<Access>,
    needs: Vec<Key>,
    /// Whether a row was found that says nothing: then a trial finds out what comes of it.
    is_lost: bool,
}

impl<'a> Told<'a> {
    /// Nothing yet.
    pub(super) fn by(source: &'a dyn Source) -> Self {
        Self { source, accesses: Vec::new(), needs: Vec::new(), is_lost: false }
    }

    /// It is touched, whatever its value is.
    pub(super) fn touch(&mut self, key: Key, mode: Mode) {
        self.accesses.push(access(key, mode));
    }

    /// The value of what is touched, to go on from; the outer `None` if it is not at hand.
    pub(super) fn value(&mut self, key: &Key) -> Option<Option<Value>> {
        let value = self.source.value(key);
        if value.is_none() {
            self.needs.push(key.clone());
        }
        value
    }

    /// A row that has to be there.
    pub(super) fn row<R: Row>(&mut self, key: Key, mode: Mode) -> Option<R> {
        let value = self.value(&key);
        self.touch(key, mode);
        let row = value?.and_then(|value| R::decode(&value));
        self.is_lost |= row.is_none();
        row
    }

    /// A row that may be there.
    pub(super) fn row_if_any<R: Row>(&mut self, key: Key, mode: Mode) -> Option<R> {
        let value = self.value(&key);
        self.touch(key, mode);
        let row = R::decode(&value??);
        self.is_lost |= row.is_none();
        row
    }

    /// It can't be told.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// All of it.
    pub(super) fn all(self) -> Declared {
        self.finish(Declared::Footprint)
    }

    /// All of it, which depends on how many change `counter` before.
    pub(super) fn counting(self, counter: Key) -> Declared {
        self.finish(|footprint| Declared::Counting { footprint, counter })
    }

    fn finish(self, declare: impl FnOnce(Footprint) -> Declared) -> Declared {
        match self {
            Self { is_lost: true, .. } => Declared::Nothing,
            Self { needs, .. } if !needs.is_empty() => Declared::Needs(needs),
            Self { accesses, .. } => Footprint::new(accesses).map_or(Declared::Nothing, declare),
        }
    }
}
