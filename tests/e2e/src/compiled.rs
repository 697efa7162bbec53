//! Plugins are compiled by a process of its own, within limits, and the code is kept: what is not this edge's own is not run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::api::Reply;
use support::edge::Edge;
use support::fleet::Plan;

use crate::world::{PLUGINS, World, guest};

const HOST: &str = "shop.example";
const COMPILES: &str = "latchkey_plugin_compiles_total";

async fn count(world: &World, result: &str) -> f64 {
    world.metric(COMPILES, &format!("\"{result}\"")).await
}

fn data_folder(world: &World) -> PathBuf {
    world.fleet.edge_setup.data_folder()
}

fn code_files(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_folder(world).join("compiled")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

async fn restart(world: &mut World) {
    world.fleet.edge.process.stop().await.unwrap();
    world.fleet.edge = Edge::start(&world.fleet.edge_setup).await.unwrap();
}

/// Plugins run: a redirect and a header are theirs.
async fn plugins_run(world: &World) {
    let mut visitor = world.https(HOST).await;
    assert_eq!(visitor.get(HOST, "/old").await.unwrap().status, 308);
    assert!(visitor.get(HOST, "/").await.unwrap().header("strict-transport-security").is_some());
}

#[tokio::test]
async fn a_restart_compiles_nothing_and_believes_only_its_own_files() {
    let mut world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    let plugins = PLUGINS.len();
    assert_eq!((count(&world, "compiled").await, count(&world, "cached").await), (plugins as f64, 0.0));
    let files = code_files(&world);
    assert_eq!(files.len(), plugins);
    let key = data_folder(&world).join("compiled.key");
    for file in files.iter().chain([&key]) {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }

    restart(&mut world).await;
    assert_eq!((count(&world, "compiled").await, count(&world, "cached").await), (0.0, plugins as f64));
    plugins_run(&world).await;

    // A bit of the code; code of another plugin; a part; nothing. And a file that no plugin needs.
    let good: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for (name, bad) in [
        ("altered", altered(&good[0])),
        ("of another plugin", good[1].clone()),
        ("cut", good[0][..good[0].len() / 2].to_vec()),
        ("empty", Vec::new()),
    ] {
        fs::write(&files[0], bad).unwrap();
        fs::write(files[0].with_file_name("0".repeat(64)).with_extension("code"), &good[0]).unwrap();
        restart(&mut world).await;
        assert_eq!((count(&world, "rejected").await, count(&world, "compiled").await), (1.0, 1.0), "{name}");
        assert_eq!(count(&world, "cached").await, plugins as f64 - 1.0, "{name}");
        world.says(&["it is removed and compiled again"]).await;
        assert_eq!(code_files(&world), files, "{name}: made anew, and what is of no use is gone");
        plugins_run(&world).await;
    }

    // Under another key none of them is believed; one that others may have read is another.
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    restart(&mut world).await;
    assert_eq!((count(&world, "rejected").await, count(&world, "compiled").await), (plugins as f64, plugins as f64));
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    plugins_run(&world).await;
}

fn altered(code: &[u8]) -> Vec<u8> {
    let mut code = code.to_vec();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    code
}

#[tokio::test]
async fn compiled_code_is_not_accepted_from_anybody() {
    let world = World::start(Plan::default()).await;
    let code = fs::read(&code_files(&world)[0]).unwrap();
    for bytes in [code[32..].to_vec(), code] {
        let (_, reply) = world.fleet.edge.upload(bytes).await.unwrap();
        assert!(reply.status == 422 || reply.status == 400, "{}", reply.text());
        assert!(reply.text().contains("not a WebAssembly component"), "{}", reply.text());
    }
}

/// A component without exports, whose core module has so many functions, each with a body of so many steps.
fn bomb(functions: usize, steps: usize) -> Vec<u8> {
    // (local i32 i32 i32), then a = a * b + c; b = b + a; and so on: nothing in it can be left out or shared.
    let mut body = vec![1, 3, 0x7f];
    for step in 0..steps {
        let (a, b, c) = ((step % 3) as u8, ((step + 1) % 3) as u8, ((step + 2) % 3) as u8);
        body.extend([0x20, a, 0x20, b, 0x6c, 0x20, c, 0x6a, 0x21, a]);
    }
    body.extend([0x20, 0, 0x0b]);
    let mut code = leb(functions);
    for _ in 0..functions {
        code.extend(leb(body.len()));
        code.extend(&body);
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, &[1, 0x60, 0, 1, 0x7f]));
    module.extend(section(3, &[leb(functions), vec![0; functions]].concat()));
    module.extend(section(10, &code));
    [&b"\0asm\x0d\0\x01\0"[..], &section(1, &module)].concat()
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Uploads it while a visitor asks again and again: the reply, how many answers the visitor got, and the longest wait.
async fn upload_under_traffic(world: &World, bytes: Vec<u8>) -> (Reply, u32, Duration) {
    let visitor = world.visitor().await;
    let over = Arc::new(AtomicBool::new(false));
    let visits = tokio::spawn({
        let over = over.clone();
        async move {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            let mut connection = visitor.https(HOST).await.unwrap();
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                assert_eq!(connection.get(HOST, "/").await.unwrap().status, 200);
                longest = longest.max(asked.elapsed());
                answers += 1;
            }
            (answers, longest)
        }
    });
    let (_, reply) = world.fleet.edge.upload(bytes).await.unwrap();
    over.store(true, Ordering::Relaxed);
    let (answers, longest) = visits.await.unwrap();
    (reply, answers, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compile_bomb_is_refused_within_its_limits_and_traffic_goes_on() {
    let mut world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.fleet.edge_setup.settings = "compile_seconds_max = 3\ncompile_mib_max = 1024".into();
    restart(&mut world).await;
    for (name, bomb, says) in [
        ("a huge function", bomb(1, 700_000), ["more than 3 s of processor time", "more than 1024 MiB of memory"]),
        ("many functions", bomb(60_000, 20), ["more than 3 s of processor time", "more than 1024 MiB of memory"]),
    ] {
        let (before, began) = (count(&world, "refused").await, Instant::now());
        let (reply, answers, longest) = upload_under_traffic(&world, bomb).await;
        let text = reply.text();
        assert_eq!(reply.status, 422, "{name}: {text}");
        assert!(says.iter().any(|says| text.contains(says)), "{name}: {text}");
        assert_eq!(count(&world, "refused").await, before + 1.0);
        // One of the two processors is the compiler's, the other one is shared: the worker is not held for as long.
        assert!(answers > 20 && longest < began.elapsed() / 2, "{name}: {answers} answers, longest {longest:?}");
        println!(
            "{name}: refused after {:?}; {answers} answers meanwhile, the longest in {longest:?}",
            began.elapsed()
        );
    }
    assert_eq!(compilers(world.fleet.edge.process.id()), 0, "none is left behind");
    plugins_run(&world).await;
}

#[tokio::test]
async fn a_component_that_needs_too_much_memory_to_compile_is_refused() {
    let mut world = World::start(Plan::default()).await;
    world.issue(HOST).await;
    world.fleet.edge_setup.settings = "compile_seconds_max = 600\ncompile_mib_max = 256".into();
    restart(&mut world).await;
    let (_, reply) = world.fleet.edge.upload(bomb(1, 700_000)).await.unwrap();
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("more than 256 MiB of memory (plugins.compile_mib_max)"), "{}", reply.text());
    // Not so little that plugins as they are would not compile.
    fs::remove_dir_all(data_folder(&world).join("compiled")).unwrap();
    restart(&mut world).await;
    plugins_run(&world).await;
}

/// Children of the process.
fn compilers(parent: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let threads = fs::read_dir(Path::new("/proc").join(parent.to_string()).join("task")).unwrap();
    let of_threads = threads.flatten().map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.split_whitespace().count()
    });
    of_threads.sum::<usize>().max(children.split_whitespace().count())
}

#[tokio::test]
async fn a_component_that_is_none_is_refused_with_the_compilers_words() {
    let world = World::start(Plan::default()).await;
    let mut broken = fs::read(guest("hsts")).unwrap();
    broken.truncate(broken.len() / 2);
    let (_, reply) = world.fleet.edge.upload(broken).await.unwrap();
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("not a valid component: "), "{}", reply.text());
}
