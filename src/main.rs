//! The program: parse, run, turn the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    openclaw::run(std::env::args_os())
}
