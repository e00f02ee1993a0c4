//! Arbitrary bytes as a manifest: the sites are deterministic, in bounds and in the order of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tagrelay_fuzz::checks::scan(input));
