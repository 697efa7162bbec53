use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contract::journal::{Broken, Entry, Head, Page};
use serde_json::json;

use crate::Failure;
use crate::args::{AuditAction, CertServiceArgs};
use crate::client::CertService;
use crate::when::{date, now};

pub(super) async fn run(args: &CertServiceArgs, action: AuditAction, json: bool) -> Result<(), Failure> {
    let certservice = CertService::new(args)?;
    match action {
        AuditAction::Ls { name, after } => list(&certservice, name.as_deref(), after, json).await,
        AuditAction::Verify { head, archive } => verify(&certservice, head.as_deref(), &archive, json).await,
        AuditAction::Archive { before, out } => archive(&certservice, before, &out, json).await,
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
async fn verify(
    certservice: &CertService,
    known: Option<&str>,
    archives: &[PathBuf],
    json: bool,
) -> Result<(), Failure> {
    let mut check = Check { read: Head::default(), known: known.map(head).transpose()? };
    for file in archives {
        check.archive(file)?;
    }
    let Page { head: goal, base, .. } = certservice.journal(check.read.seq).await?;
    let archived = base.seq;
    match archives {
        // What is in archives can't be checked without them.
        [] => check.read = base,
        _ if check.read.seq < base.seq => return Err(broken(Broken::Cut(check.read.seq, base.seq))),
        _ => {}
    }
    while check.read.seq < goal.seq {
        let page = certservice.journal(check.read.seq).await?;
        if page.entries.is_empty() {
            return Err(broken(Broken::Cut(check.read.seq, goal.seq)));
        }
        page.entries.iter().filter(|entry| entry.seq <= goal.seq).try_for_each(|entry| check.follow(entry))?;
    }
    let Check { read, known } = check;
    if read != goal {
        return Err(broken(Broken::Changed(goal.seq)));
    }
    if let Some(known) = known.filter(|known| known.seq > read.seq) {
        return Err(broken(Broken::Cut(read.seq, known.seq)));
    }
    if json {
        println!("{}", json!(read));
        return Ok(());
    }
    if archives.is_empty() && archived > 0 {
        println!(
            "{} entries, none changed or missing; the first {archived} are in archives: add --archive FILE",
            read.seq - archived
        );
    } else {
        println!("{} entries, none changed or missing", read.seq);
    }
    println!("keep this elsewhere, for `latchkey audit verify --head`: {}:{}", read.seq, read.hash);
    Ok(())
}

fn broken(broken: Broken) -> Failure {
    Failure::Outcome(broken.to_string())
}

/// How far a chain was followed.
struct Check {
    read: Head,
    known: Option<Head>,
}

impl Check {
    fn follow(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.read.follow(entry).map_err(broken)?;
        if self.known.as_ref().is_some_and(|known| known.seq == self.read.seq && *known != self.read) {
            return Err(broken(Broken::Changed(self.read.seq)));
        }
        Ok(())
    }

    fn archive(&mut self, file: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::File { file: file.to_owned(), error };
        for line in BufReader::new(File::open(file).map_err(failed)?).lines() {
            let entry = serde_json::from_str(&line.map_err(failed)?).map_err(|error| failed(error.into()))?;
            self.follow(&entry)?;
        }
        Ok(())
    }
}

/// Nothing is removed before the file is whole and safe on the disk.
async fn archive(certservice: &CertService, seconds: u64, out: &Path, json: bool) -> Result<(), Failure> {
    let failed = |error| Failure::File { file: out.to_owned(), error };
    let before = now().saturating_sub(seconds);
    let mut read = certservice.journal(0).await?.base;
    let first = read.seq;
    let file = File::options().write(true).create_new(true).mode(0o600).open(out).map_err(failed)?;
    let mut file = BufWriter::new(file);
    'pages: loop {
        let page = certservice.journal(read.seq).await?;
        if page.entries.is_empty() {
            break;
        }
        for entry in &page.entries {
            if entry.at >= before {
                break 'pages;
            }
            read.follow(entry).map_err(broken)?;
            writeln!(file, "{}", json!(entry)).map_err(failed)?;
        }
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    if read.seq == first {
        std::fs::remove_file(out).map_err(failed)?;
        return Err(Failure::Outcome(format!("no entry is older than {}; nothing was archived", date(before))));
    }
    let archived = certservice.archive_journal(&read).await?;
    if json {
        println!("{}", json!(archived));
    } else {
        println!("{} entries are in {} and no longer in CertService", archived.removed, out.display());
        println!("keep all archives: `latchkey audit verify --archive FILE …` checks them with the rest");
    }
    Ok(())
}

fn head(text: &str) -> Result<Head, Failure> {
    let parsed =
        text.split_once(':').and_then(|(seq, hash)| Some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() }));
    let wrong = || Failure::Outcome(format!("--head is `{text}`; it takes SEQ:HASH, as an earlier check has told"));
    parsed.ok_or_else(wrong)
}
