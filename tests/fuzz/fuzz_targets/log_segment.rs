//! See `targets/src/log_segment.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::log_segment::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
