//! See `targets/src/schedule/mod.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::schedule::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
