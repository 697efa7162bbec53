use std::process::ExitCode;

use clap::Parser;
use cli::args::Args;

/// 0: done · 1: failed, or a verdict that something is not well · 2: wrong usage (told by clap) · 3: who is asked can't be
/// reached, so that nothing is known.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match cli::command::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(json);
            ExitCode::from(failure.exit_code())
        }
    }
}
