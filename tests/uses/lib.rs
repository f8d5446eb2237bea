//! Nothing: what is there are the tests.
#![forbid(unsafe_code)]
