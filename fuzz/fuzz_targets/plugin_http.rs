#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gossd_fuzz::plugin_http::run(data));
