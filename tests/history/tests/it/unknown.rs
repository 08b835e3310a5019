//! Operations of which nobody knows what became of them.

use parsec_history::{AnomalyKind, Consistency, Operation, Outcome, Step, Summary, check};

use crate::{add, anomaly, append, assert_fine, committed, read, read_list, read_set, write};

/// Its client gave up at the second tick.
fn unknown(ticks: (u64, u64), steps: Vec<Step>) -> Operation {
    Operation { outcome: Outcome::Unknown, ..committed(100, ticks, steps) }
}

#[test]
fn what_nobody_saw_may_not_have_happened() {
    let history = [
        unknown((0, 1), vec![append("x", 1)]),
        committed(1, (2, 3), vec![read_list("x", &[])]),
        committed(1, (4, 5), vec![append("x", 2), read_list("x", &[2])]),
    ];
    assert_fine(&history);
}

#[test]
fn what_was_seen_has_happened_and_may_have_happened_late() {
    let history = [
        unknown((0, 1), vec![append("x", 1)]),
        committed(1, (2, 3), vec![read_list("x", &[])]),
        committed(1, (4, 5), vec![read_list("x", &[1])]),
    ];
    let summary = check(&history, Consistency::StrictSerializable);
    assert_eq!(summary, Ok(Summary { operations: 3, committed: 2, recovered: 1, keys: 1 }));
}

#[test]
fn what_was_seen_stays() {
    let history = [
        unknown((0, 1), vec![append("x", 1)]),
        committed(1, (2, 3), vec![read_list("x", &[1])]),
        committed(1, (4, 5), vec![read_list("x", &[])]),
    ];
    assert_eq!(anomaly(&history).0, AnomalyKind::ReadSkew);
}

#[test]
fn nothing_takes_effect_before_it_is_submitted() {
    for (found, step) in [
        (read("x", Some(1)), write("x", 1)),
        (read_list("x", &[1]), append("x", 1)),
        (read_set("x", &[1]), add("x", 1)),
    ] {
        let history = [committed(1, (0, 1), vec![found]), unknown((2, 3), vec![step])];
        let (kind, violates, _) = anomaly(&history);
        assert_eq!(kind, AnomalyKind::InformationCycle);
        assert_eq!(violates, Consistency::StrictSerializable);
    }
}

#[test]
fn an_effect_is_whole() {
    let history = [
        unknown((0, 1), vec![append("x", 1), append("y", 2)]),
        committed(1, (2, 3), vec![read_list("x", &[1]), read_list("y", &[])]),
    ];
    assert_eq!(anomaly(&history).0, AnomalyKind::ReadSkew);
}

/// Its own read is not known, and still there is only one place for what it wrote.
#[test]
fn a_register_goes_on_from_a_write_of_unknown_outcome() {
    let update = |found, element| vec![read("x", found), write("x", element)];
    let mut history = vec![
        committed(1, (0, 1), update(None, 1)),
        unknown((0, 9), vec![write("x", 2)]),
        committed(2, (2, 3), update(Some(2), 3)),
    ];
    assert_fine(&history);
    history.push(committed(3, (4, 5), vec![read("x", Some(1))]));
    assert_eq!(anomaly(&history).0, AnomalyKind::ReadSkew);
}
