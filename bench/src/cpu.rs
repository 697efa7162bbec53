//! What a process costs: processor time of it and its children, and memory, as the kernel counts them.

use std::collections::HashMap;
use std::time::Duration;

use support::{Context, Result};

/// A process and all that it has started.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    pid: u32,
}

/// Processor time of each thread so far. Threads that end meanwhile take only what they did in between with them.
pub struct Window {
    meter: Meter,
    threads: HashMap<u32, u64>,
}

impl Meter {
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }

    pub fn open(self) -> Result<Window> {
        Ok(Window { meter: self, threads: self.threads()? })
    }

    /// Anonymous memory in use (heap and stacks, not the program itself), in bytes.
    pub fn memory(self) -> Result<u64> {
        let processes = self.processes()?;
        let anonymous = |pid: &u32| {
            let text = read(&format!("/proc/{pid}/status"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).context("RssAnon in /proc/PID/status")
        };
        processes.iter().map(anonymous).sum()
    }

    fn processes(self) -> Result<Vec<u32>> {
        let mut found = vec![self.pid];
        let mut next = 0;
        while let Some(&pid) = found.get(next) {
            next += 1;
            for thread in threads_of(pid)? {
                let children = read(&format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
                found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        Ok(found)
    }

    fn threads(self) -> Result<HashMap<u32, u64>> {
        let mut threads = HashMap::new();
        for pid in self.processes()? {
            for thread in threads_of(pid)? {
                // It may have ended since it was listed.
                let text = read(&format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
                let spent = text.split(' ').next().and_then(|ns| ns.parse().ok());
                spent.map(|ns| threads.insert(thread, ns));
            }
        }
        Ok(threads)
    }
}

impl Window {
    /// Processor time since it was opened.
    pub fn close(self) -> Result<Duration> {
        let spent = self.meter.threads()?.into_iter().map(|(thread, ns)| {
            let before = self.threads.get(&thread).copied().unwrap_or(0);
            ns.saturating_sub(before)
        });
        Ok(Duration::from_nanos(spent.sum()))
    }
}

fn threads_of(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task");
    let folder = std::fs::read_dir(&path).context(&path)?;
    Ok(folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).context(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_work_of_this_process() {
        let meter = Meter::of(std::process::id());
        let window = meter.open().unwrap();
        // As much work, however busy the machine is.
        let mut sum = 0u64;
        for step in 0..20_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(step));
        }
        // The kernel brings the counter up to date when the thread pauses.
        std::thread::sleep(Duration::from_millis(20));
        assert!(window.close().unwrap() > Duration::from_millis(5));
        assert!(meter.memory().unwrap() > 100 * 1024);
    }
}
