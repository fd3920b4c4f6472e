#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nsntrace::fuzzing::translator(bytes));
