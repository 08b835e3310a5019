//! See `targets/src/store_records.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::store_records::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
