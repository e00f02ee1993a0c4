//! Sets every site of any bytes, all at once and each repository alone: what was wanted is there afterwards, and nothing
//! else is different.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tagrelay_fuzz::checks::edit(input));
