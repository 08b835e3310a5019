//! Calls of the Lua runtime: sources of contracts, and arguments.
//!
//! Input: a byte that chooses, then a payload as it comes over the wire; or the source of a
//! contract, which is deployed and called with little work allowed.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parsec_protocol::{
    EpochNumber, EpochRecord, ErrorCode, Footprint, Key, Outcome, RuntimeId, Transaction, TxId,
    Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::lua::limits::{SOURCE_BYTE_WORK, SOURCE_BYTES_MAX};
use parsec_runtimes::lua::{LuaCall, LuaRuntime, LuaValue, PAY, Returned, contract_id, source_key};
use parsec_runtimes::{Call, Done, Recorder, Recording, Runtimes};

use crate::encoded::{Encoded, decode};
use crate::{Seed, Target, Verdict};

/// See the module.
pub const TARGET: Target = Target { name: "lua_payload", run, seeds };

/// What a call may do beside loading its source: some ten milliseconds at worst.
const WORK: u64 = 20_000;

static RUNTIMES: LazyLock<Runtimes> =
    LazyLock::new(|| Runtimes::new(vec![Arc::new(LuaRuntime::new())]));

fn run(input: &[u8]) -> Verdict {
    match input.split_first() {
        Some((kind, payload)) if kind % 2 == 0 => of_a_payload(payload),
        Some((_, source)) => of_a_source(source),
        None => Verdict::Refused,
    }
}

fn of_a_payload(input: &[u8]) -> Verdict {
    decode::<Returned>(input);
    let call = decode::<LuaCall>(input);
    let payload = Bytes::copy_from_slice(input);
    match (call, admit(&payload)) {
        (Some(_), Some(footprint)) => {
            let named = RUNTIMES.get(RuntimeId::LUA).unwrap().likely_keys(&[], &payload);
            let is_told = |key: &Key| footprint.as_ref().is_none_or(|f| f.find(key).is_some());
            assert!(named.len() == 1 && named.iter().all(is_told));
            Verdict::Accepted
        }
        (None, Some(_)) => panic!("what is admitted is a call"),
        (_, None) => Verdict::Refused,
    }
}

/// The footprint that a payload tells, if it is admitted.
fn admit(payload: &Bytes) -> Option<Option<Footprint>> {
    let transaction = Transaction::new(RuntimeId::LUA, payload.clone());
    let admitted = RUNTIMES.get(RuntimeId::LUA).unwrap().admit(&transaction).ok()?;
    assert_eq!(admitted.id, transaction.content_id());
    Some(admitted.footprint)
}

/// A contract compiles or is refused, and does the same in every machine, within its limits.
fn of_a_source(source: &[u8]) -> Verdict {
    let deploy = LuaCall::deploy(Bytes::copy_from_slice(source)).encoded();
    if admit(&deploy.clone().into()).is_none() {
        return Verdict::Refused;
    }
    assert!(source.len() <= SOURCE_BYTES_MAX);
    let (done, recording) = execute(&Nothing, deploy.into());
    let id = contract_id(source);
    if done.outcome != Outcome::Committed {
        assert_eq!(done.outcome, Outcome::Reverted(ErrorCode::Refused));
        assert!(recording.changes.is_empty());
        return Verdict::Refused;
    }
    assert_eq!(done.output, id[..]);
    assert_eq!(recording.footprint.accesses().len(), 1);

    let state = Deployed(BTreeMap::from([(source_key(&id), source.into())]));
    let arguments = [LuaValue::Int(-1), LuaValue::Float(0.5), LuaValue::from("text")];
    let limit = WORK + SOURCE_BYTE_WORK * source.len() as u64;
    let function = "run".to_owned();
    let invoke = LuaCall::Invoke { contract: id, function, arguments: arguments.into(), limit };
    let payload = Bytes::from(invoke.encoded());
    assert!(admit(&payload).is_some());
    let (first, touched) = execute(&state, payload.clone());
    let (second, again) = execute(&state, payload);
    assert_eq!((&first, &touched.footprint), (&second, &again.footprint));
    assert_eq!(touched.changes, again.changes);
    assert!(touched.footprint.find(&source_key(&id)).is_some());
    if first.outcome == Outcome::Committed {
        assert!(first.work <= limit);
        Returned::decode(&first.output).unwrap();
    }
    Verdict::Accepted
}

struct Nothing;

impl Source for Nothing {
    fn value(&self, _: &Key) -> Option<Option<Value>> {
        Some(None)
    }
}

struct Deployed(BTreeMap<Key, Value>);

impl Source for Deployed {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

/// Executes in a machine of its own.
fn execute(state: &dyn Source, payload: Bytes) -> (Done, Recording) {
    let (number, parent) = (EpochNumber(3), [0; 32]);
    let epoch = EpochRecord { number, timestamp_ms: 5, block: 0, parent, batches: Vec::new() };
    let call = Call {
        id: &TxId([4; 32]),
        sender: &[],
        payload: &payload,
        epoch: &epoch,
        entropy: &[6; 32],
        trial: false,
    };
    let mut recorder = Recorder::new(state);
    let done = RUNTIMES.sessions().execute(RuntimeId::LUA, &call, &mut recorder).unwrap();
    (done, recorder.finish().expect("so little work touches few keys"))
}

const EVERYTHING: &str = "\
local t = {[1] = 'a', b = [==[ long ]==], ['c' .. 'd'] = 0x1p4}
-- a comment
function t.run(n, x, s)
  local k, v = 'k' .. n, {}
  v[k], v[#s] = x // 1, n >> 1 | 3
  for i = 1, 3 do v[i] = math.pow(i, 2) end
  for _, w in ipairs(v) do state.add('sum', w) end
  state.put('\\x41\\z  b', string.rep(s, 3):gsub('[a-t]+', '%0%0'))
  local ok, e = pcall(function() error({code = 7}) end)
  local co = coroutine.wrap(function(a) local b <const> = coroutine.yield(a) return b end)
  emit('topic', co(1) .. (co(2) or ''))
  goto done
  ::done::
  return ok, type(e), state.number('sum'), v[k]
end
return t
";

fn seeds() -> Vec<Seed> {
    let payload = |call: LuaCall| [vec![0], call.encoded()].concat();
    let source = |source: &str| [&[1], source.as_bytes()].concat();
    let arguments = [
        LuaValue::Nil,
        LuaValue::Bool(true),
        LuaValue::Int(-7),
        LuaValue::Float(f64::NAN),
        LuaValue::from("a string that is stored out of line"),
    ];
    vec![
        Seed::new("deploy", payload(LuaCall::deploy("return {run = print}"))),
        Seed::new("invoke", payload(LuaCall::invoke([3; 32], "run", arguments))),
        Seed::new("source", source("return {run = function(n, x, s) return s, n + x end}")),
        Seed::new("source-with-everything", source(EVERYTHING)),
        Seed::new("source-of-pay", source(PAY)),
        Seed::new("source-without-end", source("return {run = function() while true do end end}")),
    ]
}
