//! See `targets/src/lua_payload.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parsec_fuzz_targets::lua_payload::TARGET;

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input);
});
