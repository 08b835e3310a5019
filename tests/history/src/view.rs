//! A history key by key: who read and wrote each, and that every transaction agrees with itself.

use std::collections::BTreeMap;

use crate::explain;
use crate::history::{Element, Found, Kind, Operation, Outcome, Step};
use crate::{Anomaly, AnomalyKind, Failure, Malformed};

/// A history that is well formed and whose transactions read only what others left.
pub(crate) struct View<'a> {
    pub(crate) operations: &'a [Operation],
    /// Every key, in the order of the names.
    pub(crate) keys: Vec<KeyView<'a>>,
    took_effect: Vec<bool>,
}

/// What happened to one key.
pub(crate) struct KeyView<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// In the order of the operations, one for each that touches the key, whatever became of it.
    pub(crate) touches: Vec<Touch>,
    /// The index of the touch that each element comes from.
    writes: BTreeMap<Element, usize>,
}

/// What one transaction did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touch {
    pub(crate) operation: usize,
    /// What others had left there, if the transaction looked. A set is in order.
    pub(crate) found: Option<Found>,
    /// What it wrote, in its order.
    pub(crate) written: Vec<Element>,
}

impl<'a> View<'a> {
    pub(crate) fn of(operations: &'a [Operation]) -> Result<Self, Failure> {
        let committed = |operation: &Operation| operation.outcome == Outcome::Committed;
        let mut view = Self {
            operations,
            keys: Vec::new(),
            took_effect: operations.iter().map(committed).collect(),
        };
        // What is malformed is told before what is anomalous.
        let mut anomaly = None;
        let mut keys = BTreeMap::new();
        for (index, operation) in operations.iter().enumerate() {
            if operation.returned < operation.invoked && operation.outcome != Outcome::Unknown {
                return Err(Malformed::ReturnedBeforeInvoked { operation: index }.into());
            }
            for step in &operation.steps {
                let key = keys.entry(step.key()).or_insert_with(|| KeyView::new(step));
                let taken = key.take(index, operation, step)?;
                anomaly = anomaly.or_else(|| taken.err().map(|why| (index, why)));
            }
        }
        view.keys = keys.into_values().collect();
        if let Some((index, (kind, why))) = anomaly {
            return Err(explain::direct(&view, kind, &[index], why).into());
        }
        view.check_reads()?;
        Ok(view)
    }

    /// Whether an operation committed, or may have and was seen.
    pub(crate) fn took_effect(&self, operation: usize) -> bool {
        self.took_effect[operation]
    }

    /// What the transactions that took effect did to a key.
    pub(crate) fn effective<'k>(&'k self, key: &'k KeyView<'_>) -> impl Iterator<Item = &'k Touch> {
        key.touches.iter().filter(|touch| self.took_effect(touch.operation))
    }

    /// Checks that what was read was written, by somebody whose last word it was.
    fn check_reads(&mut self) -> Result<(), Failure> {
        let mut seen = Vec::new();
        for key in &self.keys {
            for touch in &key.touches {
                let Some(found) = &touch.found else { continue };
                for element in found.elements() {
                    seen.push(self.check_read(key, touch, *element)?);
                }
                self.check_intermediate(key, touch, found)?;
            }
        }
        // Whose outcome is unknown has committed if somebody read what it wrote.
        seen.into_iter().for_each(|writer| self.took_effect[writer] = true);
        Ok(())
    }

    /// Checks one element that was read. Returns who wrote it.
    fn check_read(
        &self,
        key: &KeyView<'_>,
        reader: &Touch,
        element: Element,
    ) -> Result<usize, Anomaly> {
        let (name, operation) = (key.name, reader.operation);
        let Some(writer) = key.writer(element) else {
            let why = format!("T{operation} read {element} of {name}, which nobody wrote");
            return Err(explain::direct(self, AnomalyKind::UnwrittenRead, &[operation], why));
        };
        let both = [operation, writer.operation];
        if writer.operation == operation {
            let why = format!("T{operation} read {element} of {name} before it wrote that");
            return Err(explain::direct(self, AnomalyKind::Internal, &both[..1], why));
        }
        if self.operations[writer.operation].outcome == Outcome::Aborted {
            let [reader, writer] = both;
            let why = format!(
                "T{reader} read {element} of {name}, and T{writer}, which wrote it, aborted"
            );
            return Err(explain::direct(self, AnomalyKind::AbortedRead, &both, why));
        }
        Ok(writer.operation)
    }

    /// Checks that a read did not see a part of what a transaction wrote to the key.
    fn check_intermediate(
        &self,
        key: &KeyView<'_>,
        reader: &Touch,
        found: &Found,
    ) -> Result<(), Anomaly> {
        let elements = found.elements();
        let seen = match found {
            Found::Register(_) | Found::List(_) => {
                elements.last().map_or(&[][..], std::slice::from_ref)
            }
            Found::Set(_) => elements,
        };
        for element in seen {
            let Some(writer) = key.writer(*element) else { continue };
            let missing = match found {
                Found::Register(_) | Found::List(_) => writer.written.last() != Some(element),
                Found::Set(_) => {
                    writer.written.iter().any(|own| elements.binary_search(own).is_err())
                }
            };
            if missing {
                let (reader, writer) = (reader.operation, writer.operation);
                let why = format!(
                    "T{reader} read {} = {found}, with {element} and without all that T{writer} \
                     wrote with it",
                    key.name
                );
                let both = [reader, writer];
                return Err(explain::direct(self, AnomalyKind::IntermediateRead, &both, why));
            }
        }
        Ok(())
    }
}

/// `Err` is an anomaly, and what is wrong.
type Taken = Result<(), (AnomalyKind, String)>;

impl<'a> KeyView<'a> {
    fn new(step: &'a Step) -> Self {
        Self { name: step.key(), kind: step.kind(), touches: Vec::new(), writes: BTreeMap::new() }
    }

    /// What the transaction that wrote an element did to the key.
    pub(crate) fn writer(&self, element: Element) -> Option<&Touch> {
        self.writes.get(&element).map(|touch| &self.touches[*touch])
    }

    /// What a transaction did to the key, if it did something.
    pub(crate) fn touch_of(&self, operation: usize) -> Option<&Touch> {
        let index = self.touches.binary_search_by_key(&operation, |touch| touch.operation);
        index.ok().map(|index| &self.touches[index])
    }

    /// Takes the next step of an operation, the last of those so far.
    fn take(
        &mut self,
        index: usize,
        operation: &Operation,
        step: &Step,
    ) -> Result<Taken, Malformed> {
        if step.kind() != self.kind {
            return Err(Malformed::TwoKinds { operation: index, key: self.name.to_owned() });
        }
        if self.touches.last().is_none_or(|touch| touch.operation != index) {
            self.touches.push(Touch { operation: index, found: None, written: Vec::new() });
        }
        if let Some(element) = step.written() {
            return self.take_write(index, element).map(Ok);
        }
        match (step, self.touches.last_mut()) {
            (Step::Read { found, .. }, Some(touch)) if operation.outcome == Outcome::Committed => {
                Ok(touch.take_read(self.name, found))
            }
            _ => Ok(Ok(())),
        }
    }

    fn take_write(&mut self, index: usize, element: Element) -> Result<(), Malformed> {
        let last = self.touches.len() - 1;
        let touch = &mut self.touches[last];
        touch.written.push(element);
        match self.writes.insert(element, last) {
            None => Ok(()),
            Some(first) => Err(Malformed::WrittenTwice {
                before: self.touches[first].operation,
                operation: index,
                key: self.name.to_owned(),
                element,
            }),
        }
    }
}

impl Touch {
    /// Takes a read: whatever it owes to others must be the same in all reads of the transaction.
    fn take_read(&mut self, key: &str, found: &Found) -> Taken {
        let operation = self.operation;
        let mut sorted = found.elements().to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let why = format!("T{operation} read {key} = {found}: {} took effect twice", twice[0]);
            return Err((AnomalyKind::DuplicateEffect, why));
        }
        let internal = |why| Err((AnomalyKind::Internal, why));
        let Some(others) = self.without_own(found, sorted) else {
            let own = crate::history::listed(&self.written);
            return internal(format!(
                "T{operation} read {key} = {found} after it had written {own}"
            ));
        };
        match (&self.found, others) {
            (_, None) => Ok(()),
            (Some(before), Some(now)) if *before != now => {
                internal(format!("T{operation} read {key} = {before} of others and then {now}"))
            }
            (_, Some(now)) => {
                self.found = Some(now);
                Ok(())
            }
        }
    }

    /// A read without the transaction's own writes, which it must show: `None` if it does not.
    /// `Some(None)` if nothing of others can be seen below them.
    fn without_own(&self, found: &Found, mut sorted: Vec<Element>) -> Option<Option<Found>> {
        let own = &self.written[..];
        match found {
            Found::Register(element) => match own.last() {
                None => Some(Some(found.clone())),
                own => (element.as_ref() == own).then_some(None),
            },
            Found::List(elements) => {
                elements.strip_suffix(own).map(|others| Some(Found::List(others.to_vec())))
            }
            Found::Set(_) => {
                let all = own.iter().all(|element| sorted.binary_search(element).is_ok());
                sorted.retain(|element| !own.contains(element));
                all.then_some(Some(Found::Set(sorted)))
            }
        }
    }
}
