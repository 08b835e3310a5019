//! Programs of the native runtime.
//!
//! Input: a payload. What admission accepts is executed, within the footprint that admission says
//! or that a trial finds.

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::{
    Entry, EpochNumber, EpochRecord, Outcome, PartitionId, RuntimeId, Transaction,
};
use parsec_protocol::{Key, TxId, Value};
use parsec_runtimes::access::Source;
use parsec_runtimes::native::{NativeRuntime, Op, Program, Results};
use parsec_runtimes::{Call, Execution, Recorder, Runtime as _, Runtimes};

use crate::encoded::{Encoded, decode};
use crate::{Seed, Target, Verdict, samples};

/// See the module.
pub const TARGET: Target = Target { name: "native_payload", run, seeds };

/// A state in which every key has the same value.
struct Everywhere(Option<Value>);

impl Source for Everywhere {
    fn value(&self, _: &Key) -> Option<Option<Value>> {
        Some(self.0.clone())
    }
}

fn run(input: &[u8]) -> Verdict {
    let program = decode::<Program>(input);
    let payload = Bytes::copy_from_slice(input);
    let transaction = Transaction::new(RuntimeId::NATIVE, payload.clone());
    let Ok(admitted) = NativeRuntime.admit(&transaction) else {
        assert!(NativeRuntime.likely_keys(&[], &payload).is_empty());
        return Verdict::Refused;
    };
    assert!(program.is_some(), "what is admitted is a program");
    assert_eq!(admitted.id, transaction.content_id());
    let keys = NativeRuntime.likely_keys(&[], &payload);
    let program = program.unwrap_or_default();
    let start = program.ops.iter().find_map(|op| match op {
        Op::Chase { start, .. } => Some(Value::copy_from_slice(start.encoded())),
        _ => None,
    });
    for state in [Everywhere(None), Everywhere(start)] {
        let footprint = match admitted.footprint.clone() {
            Some(footprint) => footprint,
            None => trial(admitted.id, &payload, &state),
        };
        assert!(admitted.footprint.is_none() || keys.iter().all(|k| footprint.find(k).is_some()));
        let entry = Entry {
            id: admitted.id,
            runtime: RuntimeId::NATIVE,
            attempt: 0,
            home: PartitionId(0),
            sender: admitted.sender.clone(),
            payload: payload.clone(),
            footprint,
            expires: None,
        };
        execute(&entry, &state, admitted.footprint.is_some());
    }
    Verdict::Accepted
}

fn runtimes() -> Runtimes {
    Runtimes::new(vec![Arc::new(NativeRuntime)])
}

fn epoch() -> EpochRecord {
    let (number, parent) = (EpochNumber(1), [0; 32]);
    EpochRecord { number, timestamp_ms: 5, block: 0, parent, batches: Vec::new() }
}

/// Finds the footprint as reconnaissance does. The state has every value, so that nothing is
/// missing.
fn trial(id: TxId, payload: &Bytes, state: &Everywhere) -> parsec_protocol::Footprint {
    let mut recorder = Recorder::new(state);
    let epoch = epoch();
    let call =
        Call { id: &id, sender: &[], payload, epoch: &epoch, entropy: &[0; 32], trial: true };
    runtimes().sessions().execute(RuntimeId::NATIVE, &call, &mut recorder).unwrap();
    recorder.finish().expect("a program that is admitted fits a footprint").footprint
}

/// Executes twice: the same comes of it. A footprint that follows from the program itself is all
/// that it touches.
fn execute(entry: &Entry, state: &Everywhere, told: bool) {
    let epoch = epoch();
    let values: Vec<_> = entry.footprint.accesses().iter().map(|_| state.0.clone()).collect();
    let run = || {
        let mut sessions = runtimes().sessions();
        Execution::run(&mut sessions, entry, &epoch, &epoch.digest(), 0, &values).unwrap()
    };
    let execution = run();
    assert_eq!(execution, run());
    assert_eq!(execution.changes.len(), values.len());
    match &execution.receipt.outcome {
        Outcome::Committed => drop(Results::decode(&execution.receipt.output).unwrap()),
        Outcome::Strayed { .. } => assert!(!told, "a program left the footprint that it tells"),
        Outcome::Reverted(_) => {}
        Outcome::Invalid(_) => panic!("what is admitted can run"),
    }
}

fn seeds() -> Vec<Seed> {
    let [alice, bob, stock, rate] = samples::keys();
    let value = Value::from_static(b"value");
    let every = Program::new()
        .get(&alice)
        .put(&bob, value.clone())
        .delete(&stock)
        .add(&stock, -1)
        .require(&bob, Some(value.clone()))
        .work(3)
        .get(&rate);
    let chase = Program::new().chase(&alice, 2, Some(value)).chase(&bob, 0, None);
    vec![
        Seed::new("every-operation", every.encoded()),
        Seed::new("transfer", samples::program().encoded()),
        Seed::new("chase", chase.encoded()),
    ]
}
