//! See `targets/src/evm_predictor.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::evm_predictor::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
