//! Edits all sites of arbitrary bytes, first together, then per repository: every site has its wanted value afterwards,
//! and no other byte changed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tagrelay_fuzz::checks::edit(input));
