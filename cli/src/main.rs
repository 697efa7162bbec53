use std::process::ExitCode;

use clap::Parser;
use cli::args::Args;

/// 0: done · 1: failed · 2: wrong usage (told by clap).
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match cli::command::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            ExitCode::FAILURE
        }
    }
}
