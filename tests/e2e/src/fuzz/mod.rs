//! The checks of tests/fuzz on the stable toolchain: from good inputs, mutated ones; one that leads to something new is
//! mutated further. The same inputs in each run, unless `make fuzz` asks for longer.

// It is a library of its own for libFuzzer.
#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/checks.rs"]
mod checks;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use support::proxy_header::{self, tlv};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Whatever is mutated, not longer than this.
const BYTES_MAX: usize = 20_000;
const POOL_MAX: usize = 512;

#[test]
fn any_bytes_are_answered_by_the_reader_of_proxy_headers() {
    let (v4, v6) = ("192.0.2.7:1".parse().unwrap(), "[2001:db8::7]:1".parse().unwrap());
    let ssl = [&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"a client"), &tlv(0x23, b"X")].concat();
    let clouds = [tlv(0xe0, &[1; 8]), tlv(0xea, b"\x01vpce-1"), tlv(0xee, &[1, 2, 3, 4, 5])].concat();
    let fields =
        [tlv(0x01, b"h2"), tlv(0x02, b"a.example"), tlv(0x04, b""), tlv(0x05, b"id"), tlv(0x20, &ssl)].concat();
    let headers = [
        proxy_header::v1(v4, v4),
        proxy_header::v1(v6, v6),
        b"PROXY UNKNOWN\r\n".to_vec(),
        proxy_header::v2(v4, v4),
        proxy_header::v2(v6, v6),
        proxy_header::v2_local(),
        proxy_header::v2_with(v4, v4, &fields),
        proxy_header::v2_with_checksum(v6, v6, &[fields, clouds].concat()),
        proxy_header::v2_with(v4, v4, &tlv(0xf0, &[0; 600])),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ];
    let seeds = headers.iter().enumerate().map(|(n, header)| [&[n as u8][..], header, b"\x16\x03rest"].concat());
    let outcomes = fuzz(seeds.collect(), 100_000, checks::proxy_header);
    assert!(outcomes.len() > 15, "{outcomes:?}");
    assert!(outcomes.contains("PROXY header has a wrong checksum (CRC32C)") && outcomes.contains("need more"));
}

#[test]
fn any_bytes_are_answered_by_the_reader_of_bundles() {
    let outcomes = fuzz(checks::bundle_seeds(), 20_000, checks::sealed_bundle);
    assert!(outcomes.len() > 8, "{outcomes:?}");
    assert!(outcomes.contains("opened") && outcomes.contains("no JSON"), "{outcomes:?}");
}

/// So many inputs, or as many as fit into LATCHKEY_FUZZ_SECONDS, then beginning with a seed of its own that is told.
fn fuzz(seeds: Vec<Vec<u8>>, rounds: usize, check: fn(&[u8]) -> String) -> HashSet<String> {
    let seconds = std::env::var("LATCHKEY_FUZZ_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(SEED);
    if until.is_some() {
        random.0 = std::env::var("LATCHKEY_FUZZ_SEED").map_or_else(|_| time(), |text| text.parse().expect("a number"));
        println!("LATCHKEY_FUZZ_SEED={}", random.0);
    }
    let mut outcomes: HashSet<String> = seeds.iter().map(|seed| check(seed)).collect();
    let mut pool = seeds;
    let mut done = 0;
    while until.map_or(done < rounds, |until| Instant::now() < until) {
        done += 1;
        let mut input = random.of(&pool).clone();
        for _ in 0..=random.below(4) {
            let other = random.of(&pool).clone();
            random.mutate(&mut input, &other);
        }
        input.truncate(BYTES_MAX);
        let told = std::panic::catch_unwind(|| check(&input));
        let outcome = told.unwrap_or_else(|_| panic!("found: {:?}", String::from_utf8_lossy(&input)));
        if outcomes.insert(outcome) && pool.len() < POOL_MAX {
            pool.push(input);
        }
    }
    println!("{done} inputs, {} outcomes", outcomes.len());
    outcomes
}

fn time() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(SEED, |elapsed| elapsed.as_nanos() as u64 | 1)
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 32) as usize % limit.max(1)
    }

    fn of<'a>(&mut self, pool: &'a [Vec<u8>]) -> &'a Vec<u8> {
        &pool[self.below(pool.len())]
    }

    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        let magnitude = self.below(7);
        let length = self.below(1 << magnitude);
        let end = (at + length).min(input.len());
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => {
                input[at] = *[0, 1, 0x20, 0x7f, 0x80, 0xff, b'"', b'.'].get(self.below(8)).unwrap_or(&0)
            }
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let copy = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 => {
                let from = self.below(other.len() + 1);
                let piece = other[from..(from + length).min(other.len())].to_vec();
                input.splice(at..end, piece);
            }
            6 => input.splice(at..at, std::iter::repeat_n(self.next() as u8, length)).for_each(drop),
            _ if end >= at + 2 => input[at..at + 2].copy_from_slice(&(self.below(700) as u16).to_be_bytes()),
            _ => input.push(self.next() as u8),
        }
    }
}
