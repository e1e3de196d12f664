#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| acms_fuzz::response::check(input));
