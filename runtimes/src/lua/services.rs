//! What a contract asks of the state, and how it is answered.

use bytes::Bytes;
use mlua::{Lua, MultiValue, Value};
use parsec_protocol::limits::VALUE_BYTES_MAX;
use parsec_protocol::{Delta, Event, Key, ShortBytes, Topics};

use super::contract_key;
use super::host::{request, work_for};
use super::limits::{EVENT_BYTES_MAX, EVENTS_MAX, REQUEST_WORK};
use super::machine::Stop;
use super::meter::Meter;
use crate::draft::Draft;

/// The state of one contract, for one call.
pub(super) struct Services<'a, 'b> {
    draft: &'a mut Draft<'b>,
    contract: [u8; 32],
    pub(super) events: Vec<Event>,
    event_bytes: usize,
}

/// What a contract gets for its request, or why it gets nothing.
type Answer = Result<Value, String>;

impl<'a, 'b> Services<'a, 'b> {
    pub(super) fn new(draft: &'a mut Draft<'b>, contract: [u8; 32]) -> Self {
        Self { draft, contract, events: Vec::new(), event_bytes: 0 }
    }

    /// Undoes all changes and events.
    pub(super) fn restart(&mut self) {
        self.draft.clear();
        self.events.clear();
        self.event_bytes = 0;
    }

    /// Answers a request of the prelude, whose checks on the types of arguments it relies on.
    ///
    /// # Errors
    /// Why the call can't go on.
    pub(super) fn answer(
        &mut self,
        lua: &Lua,
        meter: &Meter,
        request: MultiValue,
    ) -> Result<MultiValue, Stop> {
        let mut arguments = request.into_vec().into_iter();
        let (code, name, argument) = (arguments.next(), arguments.next(), arguments.next());
        let (Some(Value::Integer(code)), Some(Value::String(name))) = (code, name) else {
            return Err(Stop::Host);
        };
        let name = name.as_bytes();
        let bytes = match &argument {
            Some(Value::String(text)) => text.as_bytes().len(),
            _ => 0,
        };
        meter.spend(REQUEST_WORK + work_for(name.len() + bytes));
        let answer = match (code, argument) {
            (request::GET, _) => self.get(lua, meter, &name)?,
            (request::NUMBER, _) => self.number(&name)?,
            (request::PUT, Some(Value::String(value))) => {
                self.put(&name, Some(Bytes::copy_from_slice(&value.as_bytes())))
            }
            (request::PUT, None | Some(Value::Nil)) => self.put(&name, None),
            (request::ADD, Some(Value::Integer(amount))) => self.add(&name, amount),
            (request::EMIT, Some(Value::String(data))) => self.emit(&name, &data.as_bytes()),
            _ => return Err(Stop::Host),
        };
        let (answered, value) = match answer {
            Ok(value) => (true, value),
            Err(problem) => (false, Value::String(lua.create_string(problem)?)),
        };
        Ok(MultiValue::from_vec(vec![Value::Boolean(answered), value]))
    }

    fn key(&self, name: &[u8]) -> Result<Key, String> {
        contract_key(&self.contract, name).map_err(|error| error.to_string())
    }

    fn get(&mut self, lua: &Lua, meter: &Meter, name: &[u8]) -> Result<Answer, Stop> {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(problem) => return Ok(Err(problem)),
        };
        let Some(value) = self.draft.get(&key).map_err(Stop::Interrupt)? else {
            return Ok(Ok(Value::Nil));
        };
        meter.spend(work_for(value.len()));
        meter.note_string(value.len());
        Ok(Ok(Value::String(lua.create_string(&value)?)))
    }

    fn number(&mut self, name: &[u8]) -> Result<Answer, Stop> {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(problem) => return Ok(Err(problem)),
        };
        let value = self.draft.get(&key).map_err(Stop::Interrupt)?.unwrap_or_default();
        let mut padded = [0; 32];
        let head = value.len().min(32);
        padded[..head].copy_from_slice(&value[..head]);
        Ok(match small(&padded) {
            Some(number) => Ok(Value::Integer(number)),
            None => Err("the number is too large for an integer".into()),
        })
    }

    fn put(&mut self, name: &[u8], value: Option<Bytes>) -> Answer {
        let key = self.key(name)?;
        if value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"));
        }
        self.draft.put(key, value.map(Into::into));
        Ok(Value::Nil)
    }

    fn add(&mut self, name: &[u8], amount: i64) -> Answer {
        self.draft.add(self.key(name)?, Delta::from(i128::from(amount)));
        Ok(Value::Nil)
    }

    fn emit(&mut self, topic: &[u8], data: &[u8]) -> Answer {
        self.event_bytes += topic.len() + data.len();
        if self.events.len() == EVENTS_MAX || self.event_bytes > EVENT_BYTES_MAX {
            return Err(format!(
                "more than {EVENTS_MAX} events, or {EVENT_BYTES_MAX} bytes of them"
            ));
        }
        let topic = topic.try_into().unwrap_or_else(|_| *blake3::hash(topic).as_bytes());
        self.events.push(Event {
            source: ShortBytes::copy_from_slice(&self.contract),
            topics: Topics::from_slice(&[topic]),
            data: ShortBytes::copy_from_slice(data),
        });
        Ok(Value::Nil)
    }
}

/// A 256-bit number in two's complement, if it fits an integer of Lua.
fn small(number: &[u8; 32]) -> Option<i64> {
    let (high, low) = number.split_at(24);
    let low = i64::from_be_bytes(low.try_into().ok()?);
    let sign = if low < 0 { 0xff } else { 0 };
    high.iter().all(|byte| *byte == sign).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_fit_are_read_with_their_sign() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(small(&Delta::from(i128::from(number)).0), Some(number));
        }
        assert_eq!(small(&Delta::from(i128::from(i64::MAX) + 1).0), None);
        assert_eq!(small(&Delta::from(i128::from(i64::MIN) - 1).0), None);
    }
}
