//! Histories as long as those of a long run.

#![allow(clippy::disallowed_types, reason = "how long it takes is what is tested")]

use std::time::{Duration, Instant};

use parsec_history::{Consistency, Found, Operation, Step, Tick, check};

use crate::{add, append, committed, read, read_list, read_set, write};

const OPERATIONS: u64 = 100_000;
/// Operations after which lists and sets begin anew, as their reads grow with them.
const GENERATION: u64 = 400;
/// How many operations run at the same time.
const CLIENTS: u64 = 50;

/// Hot registers, lists and sets, read and written by many clients.
fn history() -> Vec<Operation> {
    let mut random = 1_u64;
    let mut below = |limit: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let mut registers = [None; 4];
    let (mut list, mut set) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for turn in 0..OPERATIONS {
        let (generation, element) = (turn / GENERATION, turn + 1);
        if turn % GENERATION == 0 {
            (list, set) = (Vec::new(), Vec::new());
        }
        let (list_key, set_key) = (format!("list {generation}"), format!("set {generation}"));
        let register = usize::try_from(below(4)).unwrap();
        let name = format!("register {register}");
        let mut steps = vec![read(&name, registers[register])];
        match below(5) {
            0 => {
                list.push(element);
                steps.push(append(&list_key, element));
            }
            1 => {
                set.push(element);
                steps.push(add(&set_key, element));
            }
            2 => steps.push(read_list(&list_key, &list)),
            3 => steps.push(read_set(&set_key, &set)),
            _ => {
                registers[register] = Some(element);
                steps.push(write(&name, element));
            }
        }
        let moment = 1_000 + 10 * turn;
        let ticks = (moment - below(10 * CLIENTS), moment + below(10 * CLIENTS));
        all.push(committed(turn % CLIENTS, ticks, steps));
    }
    all
}

fn timed(what: &str, history: &[Operation]) -> (bool, Duration) {
    let started = Instant::now();
    let answer = check(history, Consistency::StrictSerializable);
    let taken = started.elapsed();
    println!("{what}: {} operations in {taken:?}", history.len());
    (answer.is_ok(), taken)
}

/// Far more than it takes, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_hundred_thousand_operations_take_seconds() {
    let mut history = history();
    let (fine, taken) = timed("correct", &history);
    assert!(fine && taken < PATIENCE);

    // One read of the first value of a register, at the end of it all: everything in between is
    // in one component with it.
    let Step::Read { found, .. } = &mut history.last_mut().unwrap().steps[0] else { panic!() };
    *found = Found::Register(None);
    let (fine, taken) = timed("one stale read", &history);
    assert!(!fine && taken < PATIENCE);

    // Time runs backwards, so that nothing is right.
    for operation in &mut history {
        let turned = |tick: Tick| Tick(100 * OPERATIONS - tick.0);
        (operation.invoked, operation.returned) =
            (turned(operation.returned), turned(operation.invoked));
    }
    let (fine, taken) = timed("backwards", &history);
    assert!(!fine && taken < PATIENCE);
}
