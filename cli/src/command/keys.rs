use contract::api::{Custody, EdgeKeyInfo, KeyState, RetiredKey};
use serde_json::json;

use super::plugin::by_proxy;
use super::text;
use crate::Failure;
use crate::args::{CertServiceArgs, KeysAction};
use crate::client::CertService;
use crate::when::date;

pub(super) async fn run(args: &CertServiceArgs, action: KeysAction, json: bool) -> Result<(), Failure> {
    if let KeysAction::Rewrap(passed) = action {
        // It reads the edge's own boot file, and uses its key.
        return by_proxy(&["rewrap"], passed, json);
    }
    let certservice = CertService::new(args)?;
    match action {
        KeysAction::Ls => {
            list(&certservice.keys().await?, json);
            Ok(())
        }
        KeysAction::Add { pool, file, dry_run } => {
            let (key, new) = certservice.add_key(&pool, &text(&file)?, dry_run).await?;
            added(&key, new, dry_run, json);
            Ok(())
        }
        KeysAction::Retire { kids, pool, force, dry_run } => {
            let kids = match pool {
                Some(pool) => of_pool(&certservice.keys().await?, &pool)?,
                None => kids,
            };
            for kid in kids {
                retired(&certservice.retire_key(&kid, force, dry_run).await?, json);
            }
            Ok(())
        }
        KeysAction::Custody => custody(&certservice.custody().await?, json),
        KeysAction::Rewrap(_) => Ok(()),
    }
}

fn of_pool(keys: &[EdgeKeyInfo], pool: &str) -> Result<Vec<String>, Failure> {
    let active = keys.iter().filter(|key| key.pool == pool && key.state == KeyState::Active);
    let kids: Vec<_> = active.map(|key| key.kid.clone()).collect();
    if kids.is_empty() { Err(Failure::Outcome(format!("pool `{pool}` has no active edge key"))) } else { Ok(kids) }
}

fn word(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Retired => "retired",
        KeyState::Altered => "ALTERED",
    }
}

fn list(keys: &[EdgeKeyInfo], json: bool) {
    if json {
        println!("{}", json!(keys));
        return;
    }
    let width = keys.iter().map(|key| key.pool.len()).max().unwrap_or_default();
    for key in keys {
        let since = match key.retired_at {
            Some(at) => format!("{}, retired {}", date(key.added_at), date(at)),
            None => date(key.added_at),
        };
        let boot = if key.boot_file { "  in the boot file" } else { "" };
        println!("{}  {:<width$}  {:<7}  {} bits  added {since}{boot}", key.kid, key.pool, word(key.state), key.bits);
    }
    println!("{} edge key{}", keys.len(), if keys.len() == 1 { "" } else { "s" });
}

fn added(key: &EdgeKeyInfo, new: bool, dry_run: bool, json: bool) {
    if json {
        println!("{}", json!(key));
        return;
    }
    match (dry_run, new) {
        (true, _) => println!("{}  pool {}, {} bits: nothing was changed", key.kid, key.pool, key.bits),
        (false, false) => println!("{}  pool {}: it was there already", key.kid, key.pool),
        (false, true) => println!(
            "{}  pool {}, {} bits: sealed to from here on; what was issued before: latchkey keys custody",
            key.kid, key.pool, key.bits
        ),
    }
}

fn retired(key: &RetiredKey, json: bool) {
    if json {
        println!("{}", json!(key));
        return;
    }
    let RetiredKey { kid, pool, sealed, unreadable, .. } = key;
    let (would, now) = if key.retired { ("", "retired; ") } else { ("would be ", "") };
    println!("{kid}  pool {pool}: {now}{sealed} bundles {would}sealed to it no more, {unreadable} {would}unreadable");
}

fn custody(custody: &Custody, json: bool) -> Result<(), Failure> {
    let active = || custody.keys.iter().filter(|key| key.state == KeyState::Active);
    let lacking = active().map(|key| key.missing + key.unconfirmed).max().unwrap_or_default();
    if json {
        println!("{}", json!(custody));
    } else {
        println!("{} bundles, {} of them not counted yet", custody.bundles, custody.uncounted);
        println!(
            "{:<43}  {:>9} {:>11} {:>9} {:>9}  state    pool",
            "edge key", "opens", "unconfirmed", "lacks", "alone"
        );
        for key in &custody.keys {
            println!(
                "{}  {:>9} {:>11} {:>9} {:>9}  {:<7}  {}",
                key.kid,
                key.sealed,
                key.unconfirmed,
                key.missing,
                key.alone,
                word(key.state),
                key.pool
            );
        }
        for pool in &custody.pools {
            println!(
                "pool {}: {} active keys; {} bundles opened by all of them, {} by none; {} by no other pool",
                pool.pool, pool.active_keys, pool.complete, pool.missing, pool.alone
            );
        }
    }
    match (custody.unreadable, lacking) {
        (0, 0) => Ok(()),
        (0, lacking) => Err(Failure::Outcome(format!(
            "an active edge key lacks {lacking} bundles: run `latchkey keys rewrap --to KEY.pub` on an edge that opens them, \
             and `latchkey keys rewrap` on the edge of that key"
        ))),
        (unreadable, _) => Err(Failure::Outcome(format!(
            "{unreadable} bundles can be opened by no active edge key: have them issued anew (`latchkey cert renew`)"
        ))),
    }
}
