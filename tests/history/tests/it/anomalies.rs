//! Each anomaly by itself, as the literature has it.

use parsec_history::{AnomalyKind, Consistency, Outcome, check};

use crate::{
    add, anomaly, append, assert_anomaly, assert_fine, at_once, committed, read, read_list,
    read_set, write,
};

/// Adya 1999, H-wcycle: two transactions wrote two keys in different orders.
#[test]
fn g0_write_cycle() {
    let history = at_once([
        vec![append("x", 1), append("y", 1)],
        vec![append("x", 2), append("y", 2)],
        vec![read_list("x", &[1, 2])],
        vec![read_list("y", &[2, 1])],
    ]);
    assert_anomaly(&history, AnomalyKind::WriteCycle, [0, 1]);
}

/// A transaction wrote before and after another one.
#[test]
fn g0_between_two_writes_of_one_transaction() {
    let history = at_once([
        vec![append("x", 1), append("x", 3)],
        vec![append("x", 2)],
        vec![read_list("x", &[1, 2, 3])],
    ]);
    assert_anomaly(&history, AnomalyKind::WriteCycle, [0, 1]);
}

/// Adya 1999, G1a.
#[test]
fn g1a_aborted_read() {
    for steps in [
        (vec![read("x", None), write("x", 1)], read("x", Some(1))),
        (vec![append("x", 1)], read_list("x", &[1])),
        (vec![add("x", 1)], read_set("x", &[1])),
    ] {
        let mut history = at_once([steps.0, vec![steps.1]]);
        assert_fine(&history);
        history[0].outcome = Outcome::Aborted;
        assert_anomaly(&history, AnomalyKind::AbortedRead, [0, 1]);
    }
}

/// Adya 1999, G1b.
#[test]
fn g1b_intermediate_read() {
    for (writer, half, whole) in [
        (
            vec![read("x", None), write("x", 1), write("x", 2)],
            read("x", Some(1)),
            read("x", Some(2)),
        ),
        (vec![append("x", 1), append("x", 2)], read_list("x", &[1]), read_list("x", &[1, 2])),
        (vec![add("x", 1), add("x", 2)], read_set("x", &[2]), read_set("x", &[2, 1])),
    ] {
        assert_fine(&at_once([writer.clone(), vec![whole]]));
        let history = at_once([writer, vec![half]]);
        assert_anomaly(&history, AnomalyKind::IntermediateRead, [0, 1]);
    }
}

/// Adya 1999, G1c: each read what the other one wrote.
#[test]
fn g1c_circular_information_flow() {
    let history = at_once([
        vec![append("x", 1), read_list("y", &[2])],
        vec![append("y", 2), read_list("x", &[1])],
    ]);
    assert_anomaly(&history, AnomalyKind::InformationCycle, [0, 1]);
    let history =
        at_once([vec![add("x", 1), read_set("y", &[2])], vec![add("y", 2), read_set("x", &[1])]]);
    assert_anomaly(&history, AnomalyKind::InformationCycle, [0, 1]);
}

/// Berenson et al., SIGMOD 1995, P4.
#[test]
fn lost_update() {
    let history = at_once([
        vec![read("x", None), write("x", 1)],
        vec![read("x", Some(1)), write("x", 2)],
        vec![read("x", Some(1)), write("x", 3)],
    ]);
    assert_anomaly(&history, AnomalyKind::LostUpdate, [1, 2]);
    let history = at_once([
        vec![read_list("x", &[]), append("x", 1)],
        vec![read_list("x", &[]), append("x", 2)],
        vec![read_list("x", &[2])],
    ]);
    assert_anomaly(&history, AnomalyKind::LostUpdate, [0, 1]);
    let history =
        at_once([vec![read_set("x", &[]), add("x", 1)], vec![read_set("x", &[]), add("x", 2)]]);
    assert_anomaly(&history, AnomalyKind::LostUpdate, [0, 1]);
}

/// Nobody looked afterwards, and still there is no order of the two.
#[test]
fn lost_update_that_nobody_saw() {
    let history = at_once([
        vec![read_list("x", &[]), append("x", 1)],
        vec![read_list("x", &[]), append("x", 2)],
    ]);
    assert_anomaly(&history, AnomalyKind::LostUpdate, [0, 1]);
}

/// Berenson et al., SIGMOD 1995, A5A; Adya 1999, G-single.
#[test]
fn read_skew() {
    let history = at_once([
        vec![read("x", None), read("y", None), write("x", 1), write("y", 2)],
        vec![read("x", None), read("y", Some(2))],
    ]);
    assert_anomaly(&history, AnomalyKind::ReadSkew, [0, 1]);
    let history =
        at_once([vec![add("x", 1), add("y", 2)], vec![read_set("x", &[]), read_set("y", &[2])]]);
    assert_anomaly(&history, AnomalyKind::ReadSkew, [0, 1]);
}

/// Berenson et al., SIGMOD 1995, A5B; Adya 1999, G2-item.
#[test]
fn write_skew() {
    let history = at_once([
        vec![read("x", None), read("y", None), write("x", 1)],
        vec![read("x", None), read("y", None), write("y", 2)],
    ]);
    assert_anomaly(&history, AnomalyKind::WriteSkew, [0, 1]);
}

/// Sovran et al., SOSP 2011 (long fork): two readers saw two independent writes in different
/// orders.
#[test]
fn long_fork() {
    let history = at_once([
        vec![append("x", 1)],
        vec![append("y", 2)],
        vec![read_list("x", &[1]), read_list("y", &[])],
        vec![read_list("x", &[]), read_list("y", &[2])],
    ]);
    assert_anomaly(&history, AnomalyKind::AntiDependencyCycle, [0, 1, 2, 3]);
}

/// The same with additions to one counter: they commute, but not for those who look.
#[test]
fn long_fork_of_one_set() {
    let history = at_once([
        vec![add("x", 1)],
        vec![add("x", 2)],
        vec![read_set("x", &[1])],
        vec![read_set("x", &[2])],
    ]);
    assert_anomaly(&history, AnomalyKind::AntiDependencyCycle, [0, 1, 2, 3]);
}

/// Fekete, O'Neil and O'Neil, SIGMOD Record 2004: all is well but for one who only reads.
#[test]
fn read_only_transaction_anomaly() {
    let withdrawal = vec![read("x", None), read("y", None), write("x", 1)];
    let deposit = vec![read("y", None), write("y", 2)];
    let report = vec![read("x", None), read("y", Some(2))];
    assert_fine(&at_once([withdrawal.clone(), deposit.clone()]));
    let history = at_once([withdrawal, deposit, report]);
    assert_anomaly(&history, AnomalyKind::AntiDependencyCycle, [0, 1, 2]);
}

#[test]
fn a_transaction_that_contradicts_itself() {
    let inconsistent = [
        vec![read("x", None), write("x", 1), read("x", None)],
        vec![read("x", Some(1)), write("x", 1)],
        vec![append("x", 1), read_list("x", &[])],
        vec![read_list("x", &[]), append("x", 1), append("x", 2), read_list("x", &[2, 1])],
        vec![add("x", 1), read_set("x", &[])],
    ];
    for steps in inconsistent {
        assert_anomaly(&at_once([steps]), AnomalyKind::Internal, [0]);
    }
    // Berenson et al., P2 (fuzzy read).
    let other = vec![read("x", None), write("x", 1)];
    let history = at_once([vec![read("x", None), read("x", Some(1))], other]);
    assert_anomaly(&history, AnomalyKind::Internal, [0]);
}

#[test]
fn an_effect_that_is_there_twice() {
    for (step, found) in
        [(append("x", 1), read_list("x", &[1, 1])), (add("x", 1), read_set("x", &[1, 1]))]
    {
        assert_anomaly(&at_once([vec![step], vec![found]]), AnomalyKind::DuplicateEffect, [1]);
    }
}

#[test]
fn what_nobody_wrote() {
    for found in [read("x", Some(1)), read_list("x", &[1]), read_set("x", &[1])] {
        assert_anomaly(&at_once([vec![found]]), AnomalyKind::UnwrittenRead, [0]);
    }
}

#[test]
fn lists_that_do_not_begin_with_one_another() {
    let history = at_once([
        vec![append("x", 1)],
        vec![append("x", 2)],
        vec![read_list("x", &[1, 2])],
        vec![read_list("x", &[2])],
    ]);
    assert_anomaly(&history, AnomalyKind::IncompatibleOrder, [2, 3]);
}

/// Serializable, but not strictly: the second operation began when the first one was over.
#[test]
fn stale_read() {
    let history = [
        committed(1, (0, 2), vec![read("x", None), write("x", 1)]),
        committed(2, (3, 5), vec![read("x", None)]),
    ];
    assert!(check(&history, Consistency::Serializable).is_ok());
    assert!(check(&history, Consistency::StrongSessionSerializable).is_ok());
    let expected = (AnomalyKind::ReadSkew, Consistency::StrictSerializable, vec![0, 1]);
    let mut found = anomaly(&history);
    found.2.sort_unstable();
    assert_eq!(found, expected);
}

/// At the same tick neither is first.
#[test]
fn what_overlaps_has_no_order() {
    assert_fine(&[
        committed(1, (0, 3), vec![read("x", None), write("x", 1)]),
        committed(2, (3, 5), vec![read("x", None)]),
    ]);
}

/// The causal reverse that serializable databases with loose clocks show: the later of two writes
/// is seen without the earlier one.
#[test]
fn causal_reverse() {
    let history = [
        committed(1, (0, 2), vec![append("x", 1)]),
        committed(2, (3, 5), vec![append("y", 2)]),
        committed(3, (1, 9), vec![read_list("x", &[]), read_list("y", &[2])]),
    ];
    assert!(check(&history, Consistency::StrongSessionSerializable).is_ok());
    let (kind, violates, operations) = anomaly(&history);
    assert_eq!((kind, violates), (AnomalyKind::ReadSkew, Consistency::StrictSerializable));
    assert_eq!(operations.len(), 3);
}

/// A client that sees less than it saw before. Clocks need not agree to see that.
#[test]
fn reads_of_one_process_that_go_back() {
    let history = [
        committed(1, (0, 9), vec![append("x", 1)]),
        committed(2, (1, 2), vec![read_list("x", &[1])]),
        committed(2, (2, 4), vec![read_list("x", &[])]),
    ];
    assert!(check(&history, Consistency::Serializable).is_ok());
    assert!(check(&history, Consistency::StrongSessionSerializable).is_err());
    assert_eq!(anomaly(&history).1, Consistency::StrongSessionSerializable);
}

/// Operations of one process that overlap have no order.
#[test]
fn a_process_may_have_many_operations_at_once() {
    assert_fine(&[
        committed(1, (0, 9), vec![append("x", 1)]),
        committed(1, (1, 8), vec![append("x", 2)]),
        committed(1, (2, 7), vec![read_list("x", &[2, 1])]),
    ]);
}

#[test]
fn an_explanation_says_who_and_why() {
    let history = [
        committed(1, (0, 2), vec![read("x", None), write("x", 7)]),
        committed(2, (3, 5), vec![read("x", None)]),
    ];
    let failure = check(&history, Consistency::StrictSerializable).unwrap_err();
    let expected = "\
G-single (read skew); this is not strictly serializable: it contradicts real time
  T0 (process 1, 0 to 2): x was nothing; x := 7
  T1 (process 2, 3 to 5): x was nothing
  T0 comes before T1: it returned at 2, before 3
  T1 comes before T0: T1 found x = nothing, without 7, which T0 wrote (read-write)
  each of them comes before the next one, and the last before the first";
    assert_eq!(failure.to_string(), expected);
}
