//! Tries every input in `tests/fuzz/seeds`: those that each fuzzer begins with, and those that ever
//! made one fail.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use parsec_fuzz_targets::{TARGETS, Target};

/// All seeds together; more would be a burden to whoever clones the project.
const SEED_BYTES_MAX: usize = 200 * 1_024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of what is in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn files(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let directory = root().join("seeds").join(target.name);
    let read = |name: String| {
        let bytes = fs::read(directory.join(&name)).unwrap();
        (name, bytes)
    };
    names(&directory).into_iter().map(read).collect()
}

#[test]
fn every_input_that_was_kept_holds() {
    for target in TARGETS {
        for (name, bytes) in files(target) {
            println!("{} {name}", target.name);
            (target.run)(&bytes);
        }
    }
}

#[test]
fn seeds_are_accepted_or_refused_as_they_should_be() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            assert_eq!((target.run)(&seed.bytes), seed.verdict, "{} {}", target.name, seed.name);
        }
    }
}

/// An encoding that changes leaves seeds behind that decode to nothing; the example `seeds` writes
/// them anew.
#[test]
fn kept_seeds_are_those_that_are_made() {
    let mut bytes = 0;
    for target in TARGETS {
        let files = files(target);
        bytes += files.values().map(Vec::len).sum::<usize>();
        for seed in (target.seeds)() {
            let kept = files.get(seed.name);
            assert!(kept == Some(&seed.bytes), "write {} {} anew", target.name, seed.name);
        }
    }
    assert!(bytes <= SEED_BYTES_MAX, "{bytes} bytes of seeds");
}

#[test]
fn every_target_has_a_fuzzer() {
    let fuzzers = names(&root().join("fuzz_targets"));
    let expected: Vec<_> = TARGETS.iter().map(|target| format!("{}.rs", target.name)).collect();
    assert_eq!(fuzzers, expected);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("path = \"fuzz_targets/{}.rs\"", target.name);
        assert!(manifest.contains(&path), "{path}");
    }
}

/// Bytes that nobody chose are no trouble to any target. A few rounds of what the fuzzers do for
/// hours, for those who have no fuzzer at hand.
#[test]
fn seeds_with_random_damage_hold() {
    let mut state = 1u64;
    let mut roll = |sides: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % sides.max(1)
    };
    for target in TARGETS {
        for seed in (target.seeds)() {
            for _ in 0..30 {
                let mut bytes = seed.bytes.clone();
                for _ in 0..=roll(3) {
                    let at = roll(bytes.len());
                    bytes[at] = u8::try_from(roll(256)).unwrap();
                }
                if roll(4) == 0 {
                    bytes.truncate(roll(bytes.len()));
                }
                (target.run)(&bytes);
            }
        }
    }
}
