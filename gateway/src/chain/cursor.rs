//! Walking over postings: all of one term, any of several terms, several conditions at once.

use fjall::Readable as _;

use super::error::ChainError;
use super::postings::{Place, Term, decode, record_key};
use super::view::View;

/// The places of one term.
struct Cursor<'v> {
    view: &'v View,
    fingerprint: u64,
    /// The stored record that was read last; empty after the last one.
    record: Vec<Place>,
    /// From here to the end of the record nothing else is stored; nothing at all if it is empty.
    covers_from: Option<Place>,
    /// Its places in the tail, which come after all that is stored.
    tail: Vec<Place>,
}

impl<'v> Cursor<'v> {
    fn new(view: &'v View, term: Term) -> Self {
        let fingerprint = term.fingerprint(view.tables.seed);
        let tail = view.tail.places(fingerprint);
        Self { view, fingerprint, record: Vec::new(), covers_from: None, tail }
    }

    /// Its first place that is not before `from`.
    fn seek(&mut self, from: Place) -> Result<Option<Place>, ChainError> {
        let before_end = |record: &[Place]| record.last().is_none_or(|last| from <= *last);
        let covered = self.covers_from.is_some_and(|first| first <= from);
        if !covered || !before_end(&self.record) {
            self.record = self.record_around(from)?;
            if self.record.is_empty() || !before_end(&self.record) {
                self.record = self.record_after(from)?;
            }
            self.covers_from = Some(from);
        }
        let stored = first_from(&self.record, from);
        Ok(stored.or_else(|| first_from(&self.tail, from)))
    }

    /// Its last place that is not after `to`.
    fn seek_back(&mut self, to: Place) -> Result<Option<Place>, ChainError> {
        if let Some(place) = last_to(&self.tail, to) {
            return Ok(Some(place));
        }
        let within = |record: &[Place]| {
            let (first, last) = (record.first(), record.last());
            first.zip(last).is_some_and(|(first, last)| *first <= to && to <= *last)
        };
        if !within(&self.record) {
            self.record = self.record_around(to)?;
            self.covers_from = None;
        }
        Ok(last_to(&self.record, to))
    }

    /// The last record that begins at or before a place. Records of a term don't overlap, so it
    /// is the only one that can hold the place.
    fn record_around(&self, place: Place) -> Result<Vec<Place>, ChainError> {
        let range =
            record_key(self.fingerprint, Place::start(0))..=record_key(self.fingerprint, place);
        self.read(self.view.snapshot.range(&self.view.tables.postings, range).next_back())
    }

    /// The first record that begins after a place.
    fn record_after(&self, place: Place) -> Result<Vec<Place>, ChainError> {
        let Some(next) = place.next() else { return Ok(Vec::new()) };
        let range =
            record_key(self.fingerprint, next)..=record_key(self.fingerprint, Place::end(u64::MAX));
        self.read(self.view.snapshot.range(&self.view.tables.postings, range).next())
    }

    fn read(&self, record: Option<fjall::Guard>) -> Result<Vec<Place>, ChainError> {
        let Some(record) = record else { return Ok(Vec::new()) };
        let (key, value) =
            record.into_inner().map_err(|error| self.view.tables.engine_error(error))?;
        decode(&key, &value).ok_or_else(|| self.view.tables.damaged("a record of postings"))
    }
}

fn first_from(places: &[Place], from: Place) -> Option<Place> {
    places.get(places.partition_point(|place| *place < from)).copied()
}

fn last_to(places: &[Place], to: Place) -> Option<Place> {
    let after = places.partition_point(|place| *place <= to);
    after.checked_sub(1).and_then(|index| places.get(index)).copied()
}

/// The places that fulfil all conditions, each of which is fulfilled by any of its terms.
/// Candidates only: a place may be among them because of a collision of fingerprints.
pub struct Search<'v> {
    conditions: Vec<Vec<Cursor<'v>>>,
}

impl<'v> Search<'v> {
    /// A search in what a view shows. Without conditions it finds nothing.
    #[must_use]
    pub fn new(view: &'v View, conditions: impl IntoIterator<Item = Vec<Term>>) -> Self {
        let cursors =
            |terms: Vec<Term>| terms.into_iter().map(|term| Cursor::new(view, term)).collect();
        Self { conditions: conditions.into_iter().map(cursors).collect() }
    }

    /// The first candidate that is not before `from`.
    ///
    /// # Errors
    /// [`ChainError::Engine`] and [`ChainError::Damaged`].
    pub fn first_from(&mut self, from: Place) -> Result<Option<Place>, ChainError> {
        self.agree(from, Cursor::seek, Ord::max, Ord::min)
    }

    /// The last candidate that is not after `to`.
    ///
    /// # Errors
    /// [`ChainError::Engine`] and [`ChainError::Damaged`].
    pub fn last_to(&mut self, to: Place) -> Result<Option<Place>, ChainError> {
        self.agree(to, Cursor::seek_back, Ord::min, Ord::max)
    }

    /// Lets each condition move the place on, as far as its `nearest` term, until all are content
    /// with it. `farther` and `nearer` say in which direction.
    fn agree(
        &mut self,
        start: Place,
        seek: impl Fn(&mut Cursor<'v>, Place) -> Result<Option<Place>, ChainError>,
        farther: impl Fn(Place, Place) -> Place,
        nearer: impl Fn(Place, Place) -> Place,
    ) -> Result<Option<Place>, ChainError> {
        if self.conditions.is_empty() {
            return Ok(None);
        }
        let mut place = start;
        loop {
            let before = place;
            for terms in &mut self.conditions {
                let mut nearest: Option<Place> = None;
                for cursor in terms {
                    if let Some(found) = seek(cursor, place)? {
                        nearest = Some(nearest.map_or(found, |nearest| nearer(nearest, found)));
                    }
                }
                match nearest {
                    Some(found) => place = farther(place, found),
                    None => return Ok(None),
                }
            }
            if place == before || self.conditions.len() == 1 {
                return Ok(Some(place));
            }
        }
    }
}
