use serde_json::json;

use crate::Failure;
use crate::args::{AdminArgs, By};
use crate::client::Admin;

pub(super) async fn run(admin: &AdminArgs, by: By, n: u16, json: bool) -> Result<(), Failure> {
    let ranking = Admin::new(admin)?.top(name(by), n).await?;
    if json {
        println!("{}", json!(ranking));
        return Ok(());
    }
    println!("{} in the last {} s: {}", ranking.by, ranking.seconds, ranking.total);
    for ranked in &ranking.names {
        // Where many names share few places, a count may be too high by what others left.
        let inexact =
            if ranked.at_least < ranked.count { format!("  (at least {})", ranked.at_least) } else { String::new() };
        println!("{:>14}  {}{inexact}", ranked.count, ranked.name);
    }
    Ok(())
}

/// As the admin API names it.
fn name(by: By) -> &'static str {
    match by {
        By::Requests => "requests",
        By::Bytes => "bytes",
        By::Errors => "errors",
        By::Handshakes => "handshakes",
        By::UnknownSni => "unknown_sni",
    }
}
