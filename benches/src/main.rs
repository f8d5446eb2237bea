//! The comparison, and the processes that it measures: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    messaging_benches::main(|| None)
}
