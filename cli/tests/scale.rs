//! `parsec bench scale`: with all that this machine can do, without it, and over a stand-in for SSH.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use parsec_bench::record::{Deployment, Run, RunKind};

/// A small run; its report is in `out`.
const SMALL: [&str; 15] = [
    "bench",
    "scale",
    "--workload",
    "native-transfer",
    "--accounts",
    "64",
    "--in-flight",
    "64",
    "--warm-up",
    "0",
    "--seconds",
    "1",
    "--out",
    "out",
    "--json",
];

fn scale(directory: &Path, arguments: &[&str]) -> (Run, Output) {
    let arguments = [&SMALL, arguments].concat();
    let output = support::run(directory, &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let run = Run::read(&directory.join("out")).unwrap();
    assert!(run.verified() && run.kind == RunKind::Scale, "{said}");
    for point in &run.points {
        for repeat in &point.repeats {
            assert!(repeat.tps > 0.0 && repeat.cpu_micros().is_some_and(|micros| micros > 1.0));
            assert_eq!(repeat.resources.memory.len(), usize::from(point.hosts) + 2, "{repeat:?}");
        }
    }
    let page = std::fs::read_to_string(directory.join("out/report.html")).unwrap();
    assert!(page.contains("throughput by hosts") && !page.contains("UNVERIFIED"));
    (run, output)
}

/// What this process left in the kernel: names of namespaces, interfaces, and groups.
fn left_behind(process: u32) -> Vec<String> {
    let mut names = Vec::new();
    let prefixes = [format!("parsec-{process}-"), format!("prs{process:x}.")];
    for directory in ["/run/netns", "/sys/class/net", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    names.retain(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    names
}

#[test]
fn sizes_are_measured_in_turns_and_the_law_is_fitted() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--hosts", "1,2,3", "--repeat", "2", "--multi-partition", "0,1"];
    let (run, _) = scale(directory.path(), &arguments);
    let points: Vec<_> =
        run.points.iter().map(|point| (point.hosts, point.multi_partition.unwrap())).collect();
    assert_eq!(points, [(1, 0.0), (2, 0.0), (3, 0.0), (2, 1.0), (3, 1.0)]);
    assert!(run.points.iter().all(|point| point.repeats.len() == 2));
    assert_eq!((run.usl.len(), run.usl[0].points.len()), (1, 3));
    assert!(run.caveats.iter().any(|caveat| caveat.contains("No law was fitted to 100 %")));
}

#[test]
fn quotas_delay_and_loss_are_made_or_said_to_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--hosts", "1,2", "--repeat", "1", "--multi-partition", "0", "--quota", "20%"];
    let distance = ["--delay", "5ms", "--loss", "0.1%"];
    let (run, _) = scale(directory.path(), &[&arguments[..], &distance].concat());
    let missing = |what: &str| run.caveats.iter().any(|caveat| caveat.starts_with(what));
    let repeats = || run.points.iter().flat_map(|point| &point.repeats);
    match run.cluster.quota {
        Some(quota) => {
            assert!((quota - 0.2).abs() < 1e-9);
            assert!(repeats().all(|repeat| repeat.resources.limits.hosts_throttled.is_some()));
        }
        None => assert!(missing("No quotas were imposed")),
    }
    let networks = repeats().all(|repeat| repeat.resources.network.len() > 1);
    match run.cluster.how {
        Deployment::Namespaces => assert!(networks),
        _ => assert!(missing("No network namespaces") && !networks),
    }
    assert_eq!((run.cluster.delay_ms, run.cluster.loss), (Some(5.0), Some(0.001)));
    // From client to sequencer to host and all the way back.
    assert!(repeats().all(|repeat| repeat.latency.p50_ms >= 20.0), "{:?}", run.points);
    assert!(repeats().all(|repeat| repeat.resources.limits.relay_seconds.is_some()));
}

#[test]
fn nothing_is_left_behind_by_a_run_that_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--hosts", "2", "--repeat", "1", "--quota", "20%", "--seconds", "600"];
    let arguments: Vec<&str> = SMALL
        .iter()
        .filter(|word| !["--seconds", "1"].contains(*word))
        .copied()
        .collect::<Vec<_>>()
        .into_iter()
        .chain(arguments)
        .collect();
    let mut command = support::parsec(directory.path(), &arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id();
    let child = support::Process(child);
    let started = std::time::Instant::now();
    // As soon as there is anything to leave behind, and a cluster is at work.
    while left_behind(process).len() < 4 && started.elapsed().as_secs() < 6 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let killed = std::process::Command::new("kill").arg(process.to_string()).status().unwrap();
    assert!(killed.success());
    let output = support::finish(child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("interrupted"), "{said}");
    assert_eq!(left_behind(process), Vec::<String>::new());
}

#[test]
fn machines_are_driven_over_ssh() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // What runs here what would run there, and does what SSH does with its arguments.
    let stub = "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\necho \"$1\" >> \
        \"$(dirname \"$0\")/targets\"\nshift\nexec sh -c \"$*\"\n";
    std::fs::write(path("stub"), stub).unwrap();
    std::fs::set_permissions(path("stub"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let sockets: Vec<_> =
        (0..4).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let address = |index: usize| sockets[index].local_addr().unwrap();
    let program = env!("CARGO_BIN_EXE_parsec");
    let place = path("there");
    let host = |name: &str, index: usize| {
        format!(
            "[[host]]\nssh = \"{name}\"\naddress = \"{}\"\ndirectory = {place:?}\n",
            address(index)
        )
    };
    let file = format!(
        "program = {program:?}\n[sequencer]\nssh = \"first\"\naddress = \"{}\"\nclients = \"{}\"\n\
         directory = {place:?}\n{}{}partitions = 2\n",
        address(0),
        address(1),
        host("second", 2),
        host("third", 3)
    );
    std::fs::write(path("hosts.toml"), file).unwrap();
    drop(sockets);
    let hosts =
        ["--hosts-file", "hosts.toml", "--ssh", "./stub", "--hosts", "1,2", "--repeat", "1"];
    let (run, _) = scale(directory.path(), &[&hosts[..], &["--multi-partition", "0,0.5"]].concat());
    assert_eq!((run.cluster.how, run.points.len()), (Deployment::Remote, 3));
    assert_eq!(run.cluster.notes.iter().filter(|note| note.contains("cores of")).count(), 3);
    let repeat = &run.points[1].repeats[0];
    assert_eq!(repeat.resources.network.len(), 3);
    assert!(repeat.resources.logs[0].bytes > 1_000);
    let targets = std::fs::read_to_string(path("targets")).unwrap();
    for target in ["first", "second", "third"] {
        assert!(targets.lines().any(|line| line == target), "{targets}");
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "files are left there");
}

#[test]
fn the_files_of_a_cluster_are_written_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[sequencer]\nssh = \"a\"\naddress = \"127.0.0.1:7000\"\nclients = \
        \"127.0.0.1:7100\"\ndirectory = \"/d\"\n[[host]]\nssh = \"b\"\naddress = \
        \"127.0.0.1:7001\"\ndirectory = \"/d\"\n";
    std::fs::write(directory.path().join("hosts.toml"), file).unwrap();
    let arguments = ["bench", "cluster", "--hosts-file", "hosts.toml", "--out", "made"];
    let output = support::run(directory.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    for file in ["node-0.toml", "node-1.toml", "certs/node-1/node.key", "certs/ca/ca.pem"] {
        assert!(directory.path().join("made").join(file).exists(), "{file}");
    }
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("ssh b 'cd /d && exec parsec node node-1.toml'"), "{said}");
    let script = directory.path().join("made/install.sh");
    let checked = std::process::Command::new("sh").arg("-n").arg(script).status().unwrap();
    assert!(checked.success());
    let again = support::run(directory.path(), &arguments);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
}
