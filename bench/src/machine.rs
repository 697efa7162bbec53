//! Where the numbers come from.

use support::folder;

use crate::cores;

/// Processor, cores, memory and kernel, on one line.
pub fn describe() -> String {
    let line = |file: &str, field: &str| {
        let text = folder::read(std::path::Path::new(file)).unwrap_or_default();
        let found =
            text.lines().find_map(|line| line.strip_prefix(field)?.split_once(':').map(|(_, v)| v.trim().to_owned()));
        found.unwrap_or_else(|| "unknown".into())
    };
    let kib: u64 = line("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = folder::read(std::path::Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let virtual_machine = if line("/proc/cpuinfo", "flags").contains("hypervisor") { ", virtual" } else { "" };
    format!(
        "{} ({} cores{virtual_machine}), {:.0} GiB, Linux {}",
        line("/proc/cpuinfo", "model name"),
        cores::count(),
        kib as f64 / 1024.0 / 1024.0,
        kernel.trim()
    )
}

/// Processes that wanted to run in the last minute, on average.
pub fn load() -> f64 {
    let text = folder::read(std::path::Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}
