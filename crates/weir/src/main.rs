//! The `weir` command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use weir::cli::{Cli, Command, expand_not};
use weir::error::Error;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let mut message = format!("weir: {error}\n");
            if let Some(advice) = error.advice() {
                message.push_str(&format!("weir: try this: {advice}\n"));
            }
            // Where standard error is closed there is nobody to tell.
            let _ = io::stderr().write_all(message.as_bytes());
            error.exit_code()
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let arguments = expand_not(std::env::args_os()).map_err(Error::Usage)?;
    let cli = Cli::parse_from(arguments);
    match cli.command {
        Command::Observe(arguments) => weir::observe::run(&arguments),
        Command::Audit(arguments) => weir::audit::run(&arguments),
        Command::Read(arguments) => weir::read::run(&arguments),
        Command::Doctor(arguments) => weir::doctor::run(&arguments),
        Command::Redirect(arguments) => weir::redirect::run(&arguments),
        Command::Run(arguments) => weir::run::run(&arguments),
        Command::Down(arguments) => weir::down::run(&arguments),
    }
}
