//! What is no history.

use parsec_history::{
    Consistency, Element, Failure, FileError, Malformed, Operation, check, read_history,
    write_history,
};

use crate::{add, append, at_once, committed, read, read_list, read_set, write};

fn failure(history: &[Operation]) -> Failure {
    check(history, Consistency::Serializable).unwrap_err()
}

#[test]
fn an_operation_returns_after_it_is_invoked() {
    let history = [committed(1, (5, 4), Vec::new())];
    assert_eq!(failure(&history), Malformed::ReturnedBeforeInvoked { operation: 0 }.into());
}

#[test]
fn a_key_is_used_in_one_way() {
    let history = at_once([vec![append("x", 1)], vec![read_set("x", &[])]]);
    assert_eq!(failure(&history), Malformed::TwoKinds { operation: 1, key: "x".into() }.into());
}

#[test]
fn an_element_is_written_once() {
    let history = at_once([vec![add("x", 1), add("y", 1)], vec![add("y", 1)]]);
    let key = "y".into();
    let expected = Malformed::WrittenTwice { before: 0, operation: 1, key, element: Element(1) };
    assert_eq!(failure(&history), expected.into());
}

/// A mistake of whoever recorded the history must not look like one of the database.
#[test]
fn what_is_malformed_goes_before_what_is_anomalous() {
    let history =
        at_once([vec![read("x", Some(1)), read("x", None)], vec![write("y", 1), write("y", 1)]]);
    assert!(matches!(failure(&history), Failure::Malformed(_)));
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let history = at_once([
        vec![read("x", None), write("x", u64::MAX), read("x", Some(u64::MAX))],
        vec![append("a \"key\"\n", 1), read_list("a \"key\"\n", &[1])],
        vec![add("s", 3), read_set("s", &[3])],
    ]);
    let mut text = Vec::new();
    write_history(&history, &mut text).unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), history.len());
    assert_eq!(read_history(&text[..]).unwrap(), history);
}

#[test]
fn a_line_that_is_no_operation_is_named() {
    let line = r#"{"process":1,"invoked":0,"returned":1,"outcome":"committed","steps":[]}"#;
    let text = format!("{line}\n\n{}\n", line.replace("committed", "perhaps"));
    let error = read_history(text.as_bytes()).unwrap_err();
    assert!(matches!(error, FileError::Line { line: 3, .. }), "{error}");
}
