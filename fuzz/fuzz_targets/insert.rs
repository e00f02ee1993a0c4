//! A kustomization of any bytes upon a base of any bytes: the entries that are added give the base's images their
//! versions, and every other reader of YAML sees nothing else that is different.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| tagrelay_fuzz::checks::insert(input));
