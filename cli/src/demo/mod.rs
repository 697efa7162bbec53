//! `latchkey demo`: a whole [`fleet`] on loopback, a [`walk`] through real requests that is checked step by step, then
//! the [`tour`]: what to try next.

mod fleet;
mod site_config;
mod talk;
mod tour;
mod walk;

use std::path::PathBuf;

use support::{Context, Result, fail};
use tokio::signal::unix::{SignalKind, signal};

use self::fleet::Demo;
use self::talk::Talk;
use crate::args::DemoArgs;

/// Ends everything that it started, however it ends.
pub async fn run(args: DemoArgs) -> Result<()> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        outcome = start_and_walk(&args) => outcome,
        _ = interrupted.recv() => stopped(&args),
        _ = terminated.recv() => stopped(&args),
    }
}

async fn start_and_walk(args: &DemoArgs) -> Result<()> {
    let mut talk = Talk::default();
    let mut demo = Demo::start(plugin_folder(args)?, args.redis, &talk).await?;
    if let Err(error) = walk::all(&mut demo, &mut talk).await {
        return fail(format!("{error}\n\n{}", demo.last_words()));
    }
    talk.done();
    if !args.once {
        tour::print(&demo);
        demo.until_a_part_dies().await?;
    }
    demo.fleet.stop().await;
    Ok(())
}

/// Asked to stop: failed only where somebody waited for the walk's outcome.
fn stopped(args: &DemoArgs) -> Result<()> {
    if args.once {
        return fail("stopped before the walk was done");
    }
    println!("\nStopped; the demo's folder is removed.");
    Ok(())
}

fn plugin_folder(args: &DemoArgs) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("plugins");
    let folder = args.plugins.clone().unwrap_or(beside);
    for plugin in site_config::PLUGINS {
        let file = folder.join(format!("{plugin}.wasm"));
        std::fs::metadata(&file)
            .context(format!("{}: the demo needs this plugin; name its folder with --plugins", file.display()))?;
    }
    Ok(folder)
}
