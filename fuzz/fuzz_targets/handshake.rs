#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gossd_fuzz::handshake::run(data));
