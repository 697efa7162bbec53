use contract::journal::{Broken, Entry, Head};
use serde_json::json;

use crate::Failure;
use crate::args::{AuditAction, CertServiceArgs};
use crate::client::CertService;
use crate::when::date;

pub(super) async fn run(args: &CertServiceArgs, action: AuditAction, json: bool) -> Result<(), Failure> {
    let certservice = CertService::new(args)?;
    match action {
        AuditAction::Ls { name, after } => list(&certservice, name.as_deref(), after, json).await,
        AuditAction::Verify { head } => verify(&certservice, head.as_deref(), json).await,
    }
}

async fn list(certservice: &CertService, name: Option<&str>, mut after: u64, json: bool) -> Result<(), Failure> {
    loop {
        let page = certservice.journal(after).await?;
        let Some(last) = page.entries.last() else { return Ok(()) };
        after = last.seq;
        for entry in page.entries.iter().filter(|entry| name.is_none_or(|name| name == entry.name)) {
            if json {
                println!("{}", json!(entry));
            } else {
                print(entry);
            }
        }
    }
}

fn print(entry: &Entry) {
    let Entry { seq, at, actor, action, tenant, name, detail, .. } = entry;
    let detail: Vec<_> = detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
    println!("{seq:>6}  {}  {action:<24}  {name}  {tenant}  by {actor}  {}", date(*at), detail.join(" "));
}

/// Reads what there is when it begins; `known` is what an earlier check ended with.
async fn verify(certservice: &CertService, known: Option<&str>, json: bool) -> Result<(), Failure> {
    let known = known.map(head).transpose()?;
    let mut read = Head::default();
    let goal = certservice.journal(0).await?.head;
    let broken = |broken: Broken| Failure::Outcome(broken.to_string());
    while read.seq < goal.seq {
        let page = certservice.journal(read.seq).await?;
        if page.entries.is_empty() {
            return Err(broken(Broken::Cut(read.seq, goal.seq)));
        }
        for entry in page.entries.iter().filter(|entry| entry.seq <= goal.seq) {
            read.follow(entry).map_err(broken)?;
            if known.as_ref().is_some_and(|known| known.seq == read.seq && *known != read) {
                return Err(broken(Broken::Changed(read.seq)));
            }
        }
    }
    if read != goal {
        return Err(broken(Broken::Changed(goal.seq)));
    }
    if let Some(known) = known.filter(|known| known.seq > read.seq) {
        return Err(broken(Broken::Cut(read.seq, known.seq)));
    }
    if json {
        println!("{}", json!(read));
    } else {
        println!("{} entries, none changed or missing", read.seq);
        println!("keep this elsewhere, for `latchkey audit verify --head`: {}:{}", read.seq, read.hash);
    }
    Ok(())
}

fn head(text: &str) -> Result<Head, Failure> {
    let parsed =
        text.split_once(':').and_then(|(seq, hash)| Some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() }));
    let wrong = || Failure::Outcome(format!("--head is `{text}`; it takes SEQ:HASH, as an earlier check has told"));
    parsed.ok_or_else(wrong)
}
