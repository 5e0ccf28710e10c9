#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gossd_fuzz::board_cards::run(data));
