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
    end_quietly_when_nobody_reads();
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

/// `println!` panics when the reader of a pipe has seen enough (`danlu models list | head -1`); that is no failure.
fn end_quietly_when_nobody_reads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or_default();
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(0);
        }
        report(panic);
    }));
}
