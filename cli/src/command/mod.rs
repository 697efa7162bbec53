//! One file a noun. Each command says what it did for a person, or prints JSON.

mod audit;
mod budget;
mod cert;
mod config;
mod doctor;
mod domain;
mod edge;
mod forecast;
mod hsts;
mod issue;
mod keys;
mod pki;
mod plugin;
mod redirects;
mod shadow;
mod status;
mod table;
mod top;

use clap::CommandFactory;

pub(crate) use self::table::push_file;

use crate::args::{Args, BudgetAction, Command, EdgeAction, ImportAction};
use crate::{Failure, demo};

pub async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Domain { certservice, action } => domain::run(&certservice, action, args.json).await,
        Command::Cert { certservice, action } => cert::run(&certservice, action, args.json).await,
        Command::Issue { certservice, issue } => issue::run(&certservice, issue, args.json).await,
        Command::Import { certservice, action: ImportAction::Show { id } } => {
            issue::show_one(&certservice, &id, args.json).await
        }
        Command::Doctor { certservice } => doctor::run(&certservice, args.json).await,
        Command::Forecast { certservice, ca_down } => forecast::run(&certservice, ca_down, args.json).await,
        Command::Audit { certservice, action } => audit::run(&certservice, action, args.json).await,
        Command::Budget { certservice, action: BudgetAction::Ls { domain } } => {
            budget::list(&certservice, domain.as_ref(), args.json).await
        }
        Command::Edge { certservice, action: EdgeAction::Ls } => edge::list(&certservice, args.json).await,
        Command::Hsts { admin, certservice, action } => hsts::run(&admin, &certservice, action, args.json).await,
        Command::Config { admin, action } => config::run(&admin, action, args.json).await,
        Command::Plugin { admin, action } => plugin::run(&admin, action, args.json).await,
        Command::Shadow { admin, action } => shadow::run(&admin, action, args.json).await,
        Command::Table { admin, action } => table::run(&admin, action, args.json).await,
        Command::Keys { certservice, action } => keys::run(&certservice, action, args.json).await,
        Command::Pki { pki, action } => pki::run(&pki.dir, action, args.json),
        Command::Redirects { admin, action } => redirects::run(&admin, action, args.json).await,
        Command::Status { admin, certservice } => status::run(&admin, &certservice, args.json).await,
        Command::Top { admin, by, n } => top::run(&admin, by, n, args.json).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "latchkey", &mut std::io::stdout());
            Ok(())
        }
        Command::Demo(demo) => Ok(demo::run(demo).await?),
    }
}

fn text(file: &std::path::Path) -> Result<String, Failure> {
    let not_utf8 = |error| Failure::File {
        file: file.to_owned(),
        error: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    };
    String::from_utf8(read(file)?).map_err(not_utf8)
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, Failure> {
    let content = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map(String::into_bytes)
    } else {
        std::fs::read(file)
    };
    content.map_err(|error| Failure::File { file: file.to_owned(), error })
}

/// Never over an existing file: a key that is lost can't be made again.
fn write_new(path: &std::path::Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::File { file: path.to_owned(), error })
}
