//! What libraries leave of a private key: copies on the stack, where a value that moves is not wiped. (The heap is wiped by the
//! program's allocator.)

use std::hint::black_box;

/// More than any of this work takes, of the 2 MiB that a thread has.
const STACK_BYTES: usize = 256 * 1024;

/// Does `work`, then overwrites the part of the stack on which it was done. What it returns should hold secrets by pointer only.
pub(crate) fn wiped_away<T>(work: impl FnOnce() -> T) -> T {
    let done = apart(work);
    overwrite();
    done
}

/// In a frame of its own, below the caller's.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

#[inline(never)]
fn overwrite() {
    black_box([0u8; STACK_BYTES]);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::channel;

    use super::*;

    /// Whether the stack of a thread that has done `work` still holds the bytes that it tells.
    pub(crate) fn left_on_the_stack(work: impl FnOnce() -> Vec<u8> + Send + 'static) -> bool {
        let (tell, told) = channel();
        let (end, ended) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let here = 0u8;
            let secret = work();
            tell.send((secret, black_box(&raw const here).addr())).unwrap();
            assert!(ended.recv().is_err(), "told by the end of the channel");
        });
        let (secret, here) = told.recv().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ranges = maps.lines().filter_map(|line| line.split(' ').next()?.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        let mut ranges = ranges.map(|(from, to)| number(from)..number(to));
        let stack = ranges.find(|range| range.contains(&here)).unwrap();
        let mut bytes = vec![0; stack.len()];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, stack.start as u64).unwrap();
        drop(end);
        thread.join().unwrap();
        bytes.windows(secret.len()).any(|window| window == secret)
    }

    /// Below all that the test itself calls afterwards.
    fn secret_on_the_stack() -> Vec<u8> {
        let mut deep = [0u8; 64 * 1024];
        for (at, byte) in deep[..32].iter_mut().enumerate() {
            *byte = black_box(at as u8).wrapping_mul(37) ^ 0x5a;
        }
        black_box(&deep)[..32].to_vec()
    }

    #[test]
    fn what_work_leaves_on_the_stack_is_overwritten() {
        assert!(left_on_the_stack(|| apart(secret_on_the_stack)), "else this test finds nothing");
        assert!(!left_on_the_stack(|| wiped_away(secret_on_the_stack)));
    }
}
