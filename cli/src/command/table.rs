use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Failure;
use crate::args::{AdminArgs, TableAction};
use crate::client::Admin;
use crate::when::date;

pub(super) async fn run(args: &AdminArgs, action: TableAction, json: bool) -> Result<(), Failure> {
    let admin = Admin::new(args)?;
    match action {
        TableAction::Push { file } => push(&admin, &file, json).await,
        TableAction::Ls => list(&admin, json).await,
        TableAction::Rm { digest } => {
            admin.remove_table(&digest).await?;
            println!("{}", if json { json!({"removed": digest}).to_string() } else { format!("removed {digest}") });
            Ok(())
        }
    }
}

/// Uploads a table: its digest, and whether the proxy did not have it yet. Read twice rather than held in memory: it may be
/// large.
pub(crate) async fn push_file(admin: &Admin, path: &Path) -> Result<(String, bool), Failure> {
    let failed = |error| Failure::File { file: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let digest = digest(&mut file).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let new = admin.push_table(file, &digest).await?;
    Ok((digest, new))
}

async fn push(admin: &Admin, path: &Path, json: bool) -> Result<(), Failure> {
    let (digest, new) = push_file(admin, path).await?;
    match (json, new) {
        (true, _) => println!("{}", json!({"digest": digest, "new": new})),
        (false, true) => println!("{digest}"),
        (false, false) => println!("{digest} (the proxy had it already)"),
    }
    Ok(())
}

fn digest(file: &mut File) -> std::io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

async fn list(admin: &Admin, json: bool) -> Result<(), Failure> {
    let tables = admin.tables().await?;
    if json {
        println!("{}", json!(tables));
        return Ok(());
    }
    for table in tables {
        let named = if table.named.is_empty() { "not in use".to_owned() } else { table.named.join(", ") };
        println!("{}  {:>12} bytes  {}  {named}", table.digest, table.bytes, date(table.uploaded_at));
    }
    Ok(())
}
