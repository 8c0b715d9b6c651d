//! danlu: the whole life of a large model in one program. This crate is the command line and the terminal; the work is in the others.

mod cli;
mod exit;
mod human;
mod interrupt;
mod life;
mod verbs;
mod views;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match verbs::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if let Some(error) = &exit.error {
                views::error(error);
            }
            exit.code()
        }
    }
}
