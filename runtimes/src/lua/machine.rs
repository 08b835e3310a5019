//! A Lua machine, and how it runs one call.
//!
//! A call is a coroutine. Whatever it wants from the state it asks for by yielding; the machine
//! answers and resumes it. To end a call (the work is used up, the state raises an interrupt) the
//! machine drops the coroutine: the contract never hears of it, so there is nothing to catch.
//!
//! **Memory decides an outcome only where it is exact.** The garbage collector is off while a call
//! runs. In a *fresh* machine, one that has run nothing yet, the bytes allocated then follow from
//! the call alone, and its limit is what a call may have. A *pooled* machine holds what earlier
//! calls left: its limit is lower, and a call that touches it begins again in a fresh machine,
//! where all is decided. A call that does not would have had the same outcome there (see
//! `limits.rs`).
//!
//! That a limit was touched is seen by a probe, an object that nothing holds: Lua tries a full
//! collection before it gives up on an allocation, and then the probe is gone for good. The prelude
//! notes it where Lua does not try.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use mlua::chunk::ChunkMode;
use mlua::thread::ThreadStatus;
use mlua::{
    Function, HookTriggers, IntoLua, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState,
};

use super::limits::{
    CALL_BYTES_MAX, COMPILED_MAX, DEAR_BYTES, DEAR_STEP_BYTES, ERROR_BYTES_MAX,
    POOLED_BASE_BYTES_MAX, POOLED_CALL_BYTES_MAX, SOURCE_BYTE_WORK, TICK_INSTRUCTIONS, VALUES_MAX,
};
use super::meter::Meter;
use super::services::Services;
use super::{LuaValue, host, source};
use crate::Interrupt;

const BASE: &str = include_str!("prelude/base.lua");
const LIBRARY: &str = include_str!("prelude/library.lua");
const CALLS: &str = include_str!("prelude/calls.lua");

/// What to run.
pub(super) struct Invocation<'a> {
    pub(super) contract: [u8; 32],
    pub(super) source: &'a [u8],
    pub(super) function: &'a str,
    pub(super) arguments: &'a [LuaValue],
    pub(super) limit: u64,
    pub(super) epoch: u64,
    pub(super) timestamp_ms: u64,
    pub(super) id: &'a [u8; 32],
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    Returned(Vec<LuaValue>),
    /// The contract raised an error that it did not catch.
    Failed(String),
    OutOfWork,
    /// The machine's memory limit was touched.
    OutOfMemory,
}

/// Why a call can't go on.
pub(super) enum Stop {
    Interrupt(Interrupt),
    /// The machine failed, or had no memory.
    Machine(mlua::Error),
    /// A host function failed, or had no memory.
    Host,
}

impl From<mlua::Error> for Stop {
    fn from(error: mlua::Error) -> Self {
        Self::Machine(error)
    }
}

/// Which limits a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It runs many calls.
    Pooled,
    /// It runs one.
    Fresh,
}

/// A Lua machine.
pub(super) struct Machine {
    lua: Lua,
    kind: Kind,
    meter: Arc<Meter>,
    /// Memory above this makes instructions dearer.
    dear_from: Arc<AtomicUsize>,
    /// The prelude's function that calls contracts.
    enter: Function,
    probe: Table,
    contracts: BTreeMap<[u8; 32], Compiled>,
}

/// A contract that is ready to run.
#[derive(Clone)]
struct Compiled {
    chunk: Function,
    longest_literal: usize,
}

impl Machine {
    /// A machine that has run nothing but the prelude.
    pub(super) fn new(kind: Kind) -> mlua::Result<Self> {
        let libraries =
            StdLib::COROUTINE | StdLib::MATH | StdLib::STRING | StdLib::TABLE | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.gc_stop();
        let meter = Arc::new(Meter::default());
        let dear_from = Arc::new(AtomicUsize::new(usize::MAX));
        let host = host::table(&lua, &meter)?;
        let part = |text| lua.load(text).set_name("=lua").set_mode(ChunkMode::Text);
        let base: Table = part(BASE).call(&host)?;
        let library: Table = part(LIBRARY).call((&host, &base))?;
        let enter = part(CALLS).call((&host, &base, &library))?;
        let (probe, weak) = (lua.create_table()?, lua.create_table()?);
        weak.set("__mode", "v")?;
        probe.set_metatable(Some(weak))?;
        set_hook(&lua, &meter, &dear_from, &probe)?;
        let contracts = BTreeMap::new();
        Ok(Self { lua, kind, meter, dear_from, enter, probe, contracts })
    }

    /// Compiles a contract to see whether that can be done.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn check(&self, source: &[u8]) -> Result<(), String> {
        self.compile(source).map(drop)
    }

    fn compile(&self, source: &[u8]) -> Result<Compiled, String> {
        let prepared = source::prepare(source)?;
        let longest_literal = prepared.longest;
        let chunk = self.lua.load(prepared.text).set_name("=contract").set_mode(ChunkMode::Text);
        match chunk.into_function() {
            Ok(chunk) => Ok(Compiled { chunk, longest_literal }),
            Err(mlua::Error::SyntaxError { message, .. }) => Err(message),
            Err(error) => Err(error.to_string()),
        }
    }

    fn contract(&mut self, id: &[u8; 32], source: &[u8]) -> Result<Compiled, String> {
        if let Some(known) = self.contracts.get(id) {
            return Ok(known.clone());
        }
        if self.contracts.len() == COMPILED_MAX {
            self.contracts.clear();
        }
        let compiled = self.compile(source)?;
        self.contracts.insert(*id, compiled.clone());
        Ok(compiled)
    }

    /// Collects garbage if there is much of it. Returns whether the machine is small enough to be
    /// used again.
    pub(super) fn tidy(&mut self) -> mlua::Result<bool> {
        if self.lua.used_memory() <= POOLED_BASE_BYTES_MAX {
            return Ok(true);
        }
        self.lua.gc_collect()?;
        // Half, or it would collect again and again.
        Ok(self.lua.used_memory() <= POOLED_BASE_BYTES_MAX / 2)
    }

    /// Whether it may run another call.
    pub(super) fn is_pooled(&self) -> bool {
        self.kind == Kind::Pooled
    }

    /// The work of the last call.
    pub(super) fn work(&self) -> u64 {
        self.meter.work()
    }

    /// Runs a call. If it ends with [`Ended::OutOfMemory`], the machine must be thrown away.
    ///
    /// # Errors
    /// The interrupt of the state, or [`Interrupt::Fatal`].
    pub(super) fn run(
        &mut self,
        invocation: &Invocation<'_>,
        services: &mut Services<'_, '_>,
    ) -> Result<Ended, Interrupt> {
        let fatal = |what: &dyn std::fmt::Display| {
            Interrupt::Fatal(format!("the Lua machine failed: {what}"))
        };
        self.meter.begin(invocation.limit);
        let source_bytes = u64::try_from(invocation.source.len()).unwrap_or(u64::MAX);
        self.meter.spend(u64::from(TICK_INSTRUCTIONS) + SOURCE_BYTE_WORK * source_bytes);
        let compiled = match self.contract(&invocation.contract, invocation.source) {
            Ok(compiled) => compiled,
            Err(problem) => return Ok(Ended::Failed(problem)),
        };
        self.meter.note_string(compiled.longest_literal);
        for argument in invocation.arguments {
            if let LuaValue::Bytes(bytes) = argument {
                self.meter.note_string(bytes.len());
            }
        }
        if self.meter.is_exhausted() {
            return Ok(Ended::OutOfWork);
        }
        self.arm().map_err(|error| fatal(&error))?;
        let ended = self.drive(compiled.chunk, invocation, services);
        self.lua.set_memory_limit(0).map_err(|error| fatal(&error))?;
        // ORDER: first of all this. Whatever a pooled machine did after its limit was touched, an
        // interrupt included, may not be what a fresh one would have done.
        if limit_touched(&self.meter, &self.probe) {
            return Ok(Ended::OutOfMemory);
        }
        match ended {
            Ok(ended) => Ok(ended),
            Err(Stop::Interrupt(interrupt)) => Err(interrupt),
            Err(Stop::Machine(error)) => Err(fatal(&error)),
            Err(Stop::Host) => Err(fatal(&"a host function raised an error")),
        }
    }

    /// Sets the limits and the probe.
    fn arm(&self) -> mlua::Result<()> {
        if self.kind == Kind::Fresh {
            // What compiling left behind depends on nothing but the source, but is no use.
            self.lua.gc_collect()?;
        }
        self.probe.raw_set(1, self.lua.create_table()?)?;
        let used = self.lua.used_memory();
        let allowed = match self.kind {
            Kind::Fresh => {
                self.dear_from.store(used + DEAR_BYTES, Relaxed);
                CALL_BYTES_MAX
            }
            Kind::Pooled => POOLED_CALL_BYTES_MAX,
        };
        self.lua.set_memory_limit(used + allowed)?;
        Ok(())
    }

    fn drive(
        &self,
        chunk: Function,
        invocation: &Invocation<'_>,
        services: &mut Services<'_, '_>,
    ) -> Result<Ended, Stop> {
        let thread = self.lua.create_thread(self.enter.clone())?;
        let mut answer = self.arguments(chunk, invocation)?;
        loop {
            let request: MultiValue = thread.resume(answer)?;
            if limit_touched(&self.meter, &self.probe) {
                return Ok(Ended::OutOfMemory);
            }
            if self.meter.is_exhausted() {
                return Ok(Ended::OutOfWork);
            }
            if thread.status() != ThreadStatus::Resumable {
                return Ok(ended(request));
            }
            answer = services.answer(&self.lua, &self.meter, request)?;
        }
    }

    fn arguments(&self, chunk: Function, invocation: &Invocation<'_>) -> mlua::Result<MultiValue> {
        let lua = &self.lua;
        let mut values = Vec::with_capacity(5 + invocation.arguments.len());
        values.push(Value::Function(chunk));
        values.push(invocation.function.into_lua(lua)?);
        // Both fit: 2^63 epochs, or milliseconds, are 292 million years.
        values.push(Value::Integer(i64::try_from(invocation.epoch).unwrap_or(i64::MAX)));
        values.push(Value::Integer(i64::try_from(invocation.timestamp_ms).unwrap_or(i64::MAX)));
        values.push(Value::String(lua.create_string(invocation.id)?));
        for argument in invocation.arguments {
            values.push(match argument {
                LuaValue::Nil => Value::Nil,
                LuaValue::Bool(value) => Value::Boolean(*value),
                LuaValue::Int(value) => Value::Integer(*value),
                LuaValue::Float(value) => Value::Number(canonical(*value)),
                LuaValue::Bytes(value) => Value::String(lua.create_string(value)?),
            });
        }
        Ok(MultiValue::from_vec(values))
    }
}

/// Counts instructions, and ends a call when its work or its memory is used up.
fn set_hook(
    lua: &Lua,
    meter: &Arc<Meter>,
    dear_from: &Arc<AtomicUsize>,
    probe: &Table,
) -> mlua::Result<()> {
    let (meter, dear_from, probe) = (meter.clone(), dear_from.clone(), probe.clone());
    let triggers = HookTriggers::new().every_nth_instruction(TICK_INSTRUCTIONS);
    lua.set_global_hook(triggers, move |lua, _| {
        let above = lua.used_memory().saturating_sub(dear_from.load(Relaxed));
        let above = u64::try_from(above / DEAR_STEP_BYTES).unwrap_or(u64::MAX);
        let price = meter.string_price().saturating_add(above);
        let exhausted = meter.spend(u64::from(TICK_INSTRUCTIONS).saturating_mul(price));
        match exhausted || limit_touched(&meter, &probe) {
            true => Ok(VmState::Yield),
            false => Ok(VmState::Continue),
        }
    })
}

/// Whether an allocation would have exceeded the limit.
fn limit_touched(meter: &Meter, probe: &Table) -> bool {
    meter.is_memory_limit_touched() || !matches!(probe.raw_get(1), Ok(Value::Table(_)))
}

/// What the prelude returned: true and the results, or false and a text.
fn ended(returned: MultiValue) -> Ended {
    let mut returned = returned.into_vec().into_iter();
    let succeeded = matches!(returned.next(), Some(Value::Boolean(true)));
    if !succeeded {
        let text = match returned.next() {
            Some(Value::String(text)) => text.to_string_lossy(),
            _ => String::new(),
        };
        return Ended::Failed(shortened(text));
    }
    if returned.len() > VALUES_MAX {
        return Ended::Failed(format!("more than {VALUES_MAX} values were returned"));
    }
    match returned.map(result).collect() {
        Ok(values) => Ended::Returned(values),
        Err(kind) => Ended::Failed(format!("a value of type {kind} can't be returned")),
    }
}

fn result(value: Value) -> Result<LuaValue, &'static str> {
    Ok(match value {
        Value::Nil => LuaValue::Nil,
        Value::Boolean(value) => LuaValue::Bool(value),
        Value::Integer(value) => LuaValue::Int(value),
        Value::Number(value) => LuaValue::Float(canonical(value)),
        Value::String(value) => LuaValue::Bytes(Bytes::copy_from_slice(&value.as_bytes())),
        other => return Err(other.type_name()),
    })
}

/// The number, with the one NaN that is the same on every processor.
fn canonical(number: f64) -> f64 {
    if number.is_nan() { f64::NAN } else { number }
}

fn shortened(mut text: String) -> String {
    let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}
