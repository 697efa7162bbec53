use serde_json::json;

use crate::Failure;
use crate::args::CertServiceArgs;
use crate::client::CertService;
use crate::when::{now, span};

pub(super) async fn list(args: &CertServiceArgs, json: bool) -> Result<(), Failure> {
    let edges = CertService::new(args)?.edges().await?;
    if json {
        println!("{}", json!(edges));
        return Ok(());
    }
    for edge in &edges {
        let state = if edge.behind == 0 { "up to date".into() } else { format!("{} changes behind", edge.behind) };
        println!("{}  {state:<20}  seen {} ago", edge.edge, span(now().saturating_sub(edge.seen_at)));
    }
    println!("{} edge{} seen", edges.len(), if edges.len() == 1 { "" } else { "s" });
    Ok(())
}
