//! The `vespiary` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vespiary::cli::main()
}
