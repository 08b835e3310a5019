//! See `targets/src/ordered.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::ordered::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
