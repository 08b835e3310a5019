//! See `targets/src/native_payload.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::native_payload::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
