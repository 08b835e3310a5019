//! `parsec bench`, from its command line to its files, and what is left of a run that is interrupted.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use support::{Process, eventually, finish, parsec, refused, run, succeeded};

/// A short run on a small cluster.
const SHORT: [&str; 13] = [
    "bench",
    "--seconds",
    "1",
    "--warm-up",
    "0",
    "--repeat",
    "1",
    "--in-flight",
    "100",
    "--hosts",
    "1",
    "--partitions",
    "1",
];

fn bench(directory: &Path, more: &[&str]) -> Output {
    run(directory, &[&SHORT[..], more].concat())
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_run_is_verified_written_down_and_compared() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    // Ether can't be made: the cluster's genesis has what it pays from.
    let ether = ["--workload", "ether", "--accounts", "20", "--out", "first", "--json"];
    let summary: Json = serde_json::from_str(&succeeded(bench(home, &ether))).unwrap();
    assert_eq!(summary["verified"], true, "{summary}");
    let checks = summary["points"][0]["checks"].as_array().unwrap();
    let passed = checks.iter().filter(|check| check["result"] == "passed").count();
    assert_eq!(passed, 3, "{summary}");
    assert!(summary["points"][0]["metrics"]["tps"]["median"].as_f64().unwrap() > 1.0);
    // Each repeat is held against one thread, and the run against the medians.
    let written = std::fs::read_to_string(home.join("first/run.json")).unwrap();
    let written: Json = serde_json::from_str(&written).unwrap();
    let beside = &written["points"][0]["repeats"][0]["lines"];
    assert!(beside["one_thread_tps"].as_f64().unwrap() > 1.0, "{beside}");
    assert_eq!(written["lines"], *beside, "the median of one is that one");
    let share = &summary["points"][0]["metrics"]["unavoidable_percent"];
    assert!(share["median"].as_f64().unwrap() > 0.0, "{summary}");
    let page = std::fs::read_to_string(home.join("first/report.html")).unwrap();
    assert!(page.contains("✓ Verified") && page.ends_with("</html>\n"));
    assert!(page.contains("could not be avoided"));
    let csv = std::fs::read_to_string(home.join("first/samples.csv")).unwrap();
    assert!(csv.lines().any(|line| line.contains(",measuring,")), "{csv}");

    // A run that misses what was asserted is written down all the same.
    let missed = ["--workload", "ether", "--accounts", "30", "--embedded", "--out", "second"];
    let said = refused(&bench(home, &[&missed[..], &["--assert", "tps>1M,p50<1h"]].concat()));
    assert!(said.contains("'1h' is no bound"), "{said}");
    assert!(!home.join("second").exists());
    let said = refused(&bench(home, &[&missed[..], &["--assert", "tps>1M,p50<1000s"]].concat()));
    assert!(said.contains("missed: tps>1M") && !said.contains("p50<1000s"), "{said}");

    let compare = |one: &str, other: &str| run(home, &["bench", "compare", one, other]);
    let same = succeeded(compare("first", "first/run.json"));
    assert!(same.contains("committed per s") && same.contains("too few repeats"), "{same}");
    assert!(refused(&compare("first", "second")).contains("can't be compared"));
    let run_json = std::fs::read_to_string(home.join("first/run.json")).unwrap();
    std::fs::write(home.join("half.json"), &run_json[..run_json.len() / 2]).unwrap();
    assert!(refused(&compare("first", "half.json")).contains("half.json"));
}

#[test]
fn a_sequencer_runs_in_the_process_of_the_first_host() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let more = ["--workload", "native-transfer", "--together", "--no-lines", "--out", "one"];
    succeeded(bench(home, &more));
    let run = std::fs::read_to_string(home.join("one/run.json")).unwrap();
    let run: Json = serde_json::from_str(&run).unwrap();
    assert_eq!(run["cluster"]["together"], true);
    assert_eq!(run["points"][0]["verification"]["verified"], true);
    assert_eq!(run["points"][0]["repeats"][0]["lines"], Json::Null);
    assert_eq!(run["lines"], Json::Null);
    let resources = &run["points"][0]["repeats"][0]["resources"];
    let of_both = |stage: &str| {
        let used = resources["cpu"].as_array().unwrap().iter();
        let mut of_host = used.filter(|used| used["host"] == "host-1" && used["role"] == "both");
        of_host.any(|used| used["stage"] == stage)
    };
    assert!(of_both("admission") && of_both("scheduling, execution"), "{resources:#}");
    assert_eq!(resources["logs"][0]["host"], "host-1");
    let page = std::fs::read_to_string(home.join("one/report.html")).unwrap();
    assert!(page.contains("the sequencer in the process of host 1, linked by memory"));
}

#[test]
fn who_stops_reading_gets_no_panic() {
    let home = tempfile::tempdir().unwrap();
    let mut command = parsec(home.path(), &["bench", "workloads"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_can_not_be_written_is_found_before_anything_is_run() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "").unwrap();
    let said = refused(&bench(home.path(), &["--out", "file/results"]));
    assert!(said.contains("file/results") && !said.contains("trying"), "{said}");
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The processes that one started, in their order.
fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("children")).ok()
    };
    let lists: Vec<String> = tasks.filter_map(of_task).collect();
    let ids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    let mut ids: Vec<u32> = ids.map(|id| id.parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    for is_stuck in [false, true] {
        let (home, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let more = ["--workload", "native-transfer", "--seconds", "600"];
        let mut command = parsec(home.path(), &[&SHORT[..1], &SHORT[3..], &more].concat());
        command.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = Process(command.spawn().unwrap());
        let id = process.0.id();
        let nodes = eventually("the nodes", || Some(children(id)).filter(|ids| ids.len() == 2));
        assert_eq!(entries(temporary.path()), 1);
        if is_stuck {
            signal("-STOP", nodes[1]);
        }
        signal("-INT", id);
        if is_stuck {
            // The second one is for those who don't want to wait.
            std::thread::sleep(Duration::from_secs(2));
            signal("-INT", id);
        }
        let output = finish(process);
        assert_eq!(output.status.code(), Some(if is_stuck { 130 } else { 1 }), "{output:?}");
        assert_eq!(entries(temporary.path()), 0, "{output:?}");
        if is_stuck {
            signal("-KILL", nodes[1]);
        } else {
            assert!(refused(&output).contains("interrupted"), "{output:?}");
        }
        let is_gone = |id: &u32| !Path::new(&format!("/proc/{id}")).exists();
        eventually("the end of the nodes", || nodes.iter().all(is_gone).then_some(()));
    }
}
