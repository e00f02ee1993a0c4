//! An arbitrary kustomization with an arbitrary base: the inserted entries set the versions of the base's images, and
//! another YAML parser sees no other difference.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tagrelay_fuzz::checks::insert(input));
