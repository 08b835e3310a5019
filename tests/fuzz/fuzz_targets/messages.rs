//! See `targets/src/messages.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::messages::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
