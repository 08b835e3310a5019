//! The command that checks a recorded history.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::{Command, Output};

const WRITE: &str = r#"{"process":1,"invoked":0,"returned":2,"outcome":"committed","steps":[{"read":{"key":"x","found":{"register":null}}},{"write":{"key":"x","element":7}}]}"#;
const READ: &str = r#"{"process":2,"invoked":3,"returned":4,"outcome":"committed","steps":[{"read":{"key":"x","found":{"register":7}}}]}"#;

fn check(lines: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_history")).arg(path).output().unwrap()
}

#[test]
fn the_exit_code_says_what_the_text_says() {
    let fine = check(&[WRITE, READ]);
    assert_eq!(String::from_utf8(fine.stdout).unwrap(), "2 operations, no anomaly\n");
    assert_eq!(fine.status.code(), Some(0));

    let stale = READ.replace(":7", ":null");
    let stale = check(&[WRITE, &stale]);
    let text = String::from_utf8(stale.stdout).unwrap();
    assert!(text.starts_with("2 operations, and an anomaly: G-single (read skew)"), "{text}");
    assert_eq!(stale.status.code(), Some(1));

    for lines in [&[WRITE, "{}"][..], &[WRITE, WRITE]] {
        let unusable = check(lines);
        assert_eq!(unusable.status.code(), Some(2));
        assert!(!unusable.stderr.is_empty());
    }
}
