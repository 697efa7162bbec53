//! One file a noun. Each command says what it did for a person, or prints JSON.

mod config;
mod domain;
mod edge;
mod plugin;
mod status;
mod top;

use crate::args::{Args, Command, EdgeAction};
use crate::{Failure, demo};

pub async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Domain { certservice, action } => domain::run(&certservice, action, args.json).await,
        Command::Edge { certservice, action: EdgeAction::Ls } => edge::list(&certservice, args.json).await,
        Command::Config { admin, action } => config::run(&admin, action, args.json).await,
        Command::Plugin { admin, action } => plugin::run(&admin, action, args.json).await,
        Command::Status { admin, certservice } => status::run(&admin, &certservice, args.json).await,
        Command::Top { admin, by, n } => top::run(&admin, by, n, args.json).await,
        Command::Demo(demo) => Ok(demo::run(demo).await?),
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let content = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map(String::into_bytes)
    } else {
        std::fs::read(file)
    };
    content.map_err(|error| Failure::File { file: file.to_owned(), error })
}
