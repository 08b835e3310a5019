//! See `targets/src/node_files.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::node_files::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
