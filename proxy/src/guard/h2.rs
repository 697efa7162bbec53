//! Counts the frames of an HTTP/2 connection as they come in (RFC 9113 section 4.1). Pure: bytes and time in, a verdict
//! out. It parses frame headers only; what they mean is the HTTP library's business.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::Exceeded;

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0x0;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// CONTINUATION frames of one header block.
const CONTINUATIONS_MAX: u32 = 16;
/// Bytes of data sent that justify one WINDOW_UPDATE.
const BYTES_PER_WINDOW_UPDATE: u64 = 512;

pub(super) struct Meter {
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    payload_left: usize,
    /// Since when a frame other than DATA lacks its end: it may announce more than ever comes.
    frame_since: Option<Instant>,
    /// Since when a header block is open, its frames and bytes.
    block: Option<(Instant, u32, usize)>,
    block_bytes_max: usize,
    settings: Bucket,
    pings: Bucket,
    resets: Bucket,
    window_updates: Bucket,
    empty_data: Bucket,
    others: Bucket,
}

/// So many at once, and so many a second after.
struct Bucket {
    left: f64,
    burst: f64,
    per_second: f64,
    seen: Instant,
}

impl Bucket {
    fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { left: f64::from(burst), burst: f64::from(burst), per_second: f64::from(per_second), seen: now }
    }

    fn earn(&mut self, credit: f64) {
        self.left = (self.left + credit).min(self.burst);
    }

    fn take(&mut self, now: Instant, what: &'static str) -> Result<(), Exceeded> {
        self.earn(now.saturating_duration_since(self.seen).as_secs_f64() * self.per_second);
        self.seen = now;
        if self.left < 1.0 {
            return Err(Exceeded::Flood(what));
        }
        self.left -= 1.0;
        Ok(())
    }
}

impl Meter {
    pub(super) fn new(now: Instant, block_bytes_max: usize) -> Self {
        Self {
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_filled: 0,
            payload_left: 0,
            frame_since: None,
            block: None,
            block_bytes_max,
            settings: Bucket::new(20, 1, now),
            pings: Bucket::new(50, 5, now),
            resets: Bucket::new(300, 50, now),
            window_updates: Bucket::new(1000, 100, now),
            empty_data: Bucket::new(100, 10, now),
            // PRIORITY, PRIORITY_UPDATE, GREASE and what is not known: browsers send a handful a request.
            others: Bucket::new(1000, 100, now),
        }
    }

    /// Since when a header block, or a frame, lacks its end. The payload of DATA has deadlines of its own.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.block.map(|(since, ..)| since).or(self.frame_since)
    }

    /// Whether the client has sent its preface.
    pub(super) fn prefaced(&self) -> bool {
        self.preface_left == 0
    }

    /// Data that went out justifies window updates that come in.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.window_updates.earn(bytes as f64 / BYTES_PER_WINDOW_UPDATE as f64);
    }

    pub(super) fn read(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Exceeded> {
        let skip = |left: &mut usize, bytes: &mut &[u8]| {
            let skipped = bytes.len().min(*left);
            *left -= skipped;
            *bytes = &bytes[skipped..];
        };
        skip(&mut self.preface_left, &mut bytes);
        while !bytes.is_empty() {
            skip(&mut self.payload_left, &mut bytes);
            if self.payload_left == 0 && self.header_filled == 0 {
                self.frame_since = (!bytes.is_empty()).then_some(now);
            }
            let taken = bytes.len().min(HEADER_BYTES - self.header_filled);
            self.header[self.header_filled..self.header_filled + taken].copy_from_slice(&bytes[..taken]);
            self.header_filled += taken;
            bytes = &bytes[taken..];
            if self.header_filled == HEADER_BYTES {
                self.header_filled = 0;
                self.frame(now)?;
                if self.payload_left == 0 || self.header[3] == DATA {
                    self.frame_since = None;
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> Result<(), Exceeded> {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.payload_left = length;
        match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => self.empty_data.take(now, "empty DATA"),
            DATA => Ok(()),
            0x1 | 0x9 => self.header_block(kind == 0x9, length, flags, now),
            0x3 => self.resets.take(now, "RST_STREAM"),
            0x4 => self.settings.take(now, "SETTINGS"),
            0x6 => self.pings.take(now, "PING"),
            0x8 => self.window_updates.take(now, "WINDOW_UPDATE"),
            _ => self.others.take(now, "PRIORITY or unknown"),
        }
    }

    fn header_block(&mut self, continued: bool, length: usize, flags: u8, now: Instant) -> Result<(), Exceeded> {
        let (since, frames, bytes) = self.block.filter(|_| continued).unwrap_or((now, 0, 0));
        let (frames, bytes) = (frames + 1, bytes + length);
        if frames > CONTINUATIONS_MAX + 1 || bytes > self.block_bytes_max {
            return Err(Exceeded::HeaderBlock);
        }
        self.block = (flags & END_HEADERS == 0).then_some((since, frames, bytes));
        Ok(())
    }
}

/// How long the client has to send its preface, and to finish a header block or a frame.
pub(super) fn header_deadline(meter: &Meter, started: Instant, timeout: Duration) -> Option<Instant> {
    if meter.prefaced() { meter.open_since().map(|since| since + timeout) } else { Some(started + timeout) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; length]].concat()
    }

    fn meter(now: Instant) -> Meter {
        let mut meter = Meter::new(now, 32 * 1024);
        meter.read(PREFACE, now).unwrap();
        meter
    }

    fn accepted(kind: u8, flags: u8, length: usize) -> usize {
        let now = Instant::now();
        let mut meter = meter(now);
        (0..100_000).take_while(|_| meter.read(&frame(kind, flags, length), now).is_ok()).count()
    }

    #[test]
    fn each_kind_of_flood_ends_at_its_limit() {
        assert_eq!(accepted(0x4, 0, 0), 20, "SETTINGS");
        assert_eq!(accepted(0x6, 0, 8), 50, "PING");
        assert_eq!(accepted(0x3, 0, 4), 300, "RST_STREAM");
        assert_eq!(accepted(0x8, 0, 4), 1000, "WINDOW_UPDATE");
        assert_eq!(accepted(0x2, 0, 5), 1000, "PRIORITY");
        assert_eq!(accepted(0xbe, 0, 0), 1000, "unknown");
        assert_eq!(accepted(0x0, 0, 0), 100, "empty DATA");
        assert_eq!(accepted(0x9, 0, 0), 17, "CONTINUATION");
    }

    #[test]
    fn traffic_is_not_a_flood() {
        assert_eq!(accepted(0x0, 0, 1000), 100_000, "DATA");
        assert_eq!(accepted(0x0, END_STREAM, 0), 100_000, "the end of a stream");
        assert_eq!(accepted(0x1, END_HEADERS | END_STREAM, 200), 100_000, "requests");
    }

    #[test]
    fn a_download_earns_its_window_updates() {
        let now = Instant::now();
        let mut meter = meter(now);
        for _ in 0..100_000 {
            meter.sent(16 * 1024);
            meter.read(&frame(0x8, 0, 4), now).unwrap();
            meter.read(&frame(0x8, 0, 4), now).unwrap();
        }
    }

    #[test]
    fn time_gives_frames_back() {
        let now = Instant::now();
        let mut meter = meter(now);
        (0..50).for_each(|_| meter.read(&frame(0x6, 0, 8), now).unwrap());
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).take_while(|_| meter.read(&frame(0x6, 0, 8), later).is_ok()).count(), 5);
    }

    #[test]
    fn header_blocks_are_bounded_in_bytes_and_time() {
        let now = Instant::now();
        let mut meter = meter(now);
        assert_eq!(header_deadline(&meter, now, Duration::from_secs(5)), None);
        meter.read(&frame(0x1, 0, 16 * 1024), now).unwrap();
        assert_eq!(header_deadline(&meter, now, Duration::from_secs(5)), Some(now + Duration::from_secs(5)));
        meter.read(&frame(0x9, 0, 16 * 1024), now).unwrap();
        assert_eq!(meter.read(&frame(0x9, 0, 1), now), Err(Exceeded::HeaderBlock));

        let mut meter = super::tests::meter(now);
        meter.read(&frame(0x1, 0, 10), now).unwrap();
        meter.read(&frame(0x9, END_HEADERS, 10), now).unwrap();
        assert_eq!(meter.open_since(), None);
    }

    #[test]
    fn bytes_may_come_in_any_pieces() {
        let now = Instant::now();
        let all =
            [PREFACE, &frame(0x4, 0, 6), &frame(0x1, 0, 100), &frame(0x9, END_HEADERS, 7), &frame(0x6, 0, 8)].concat();
        for size in 1..all.len() {
            let mut meter = Meter::new(now, 32 * 1024);
            all.chunks(size).for_each(|piece| meter.read(piece, now).unwrap());
            assert_eq!((meter.pings.left, meter.settings.left, meter.open_since()), (49.0, 19.0, None), "{size}");
        }
    }

    #[test]
    fn a_frame_that_announces_more_than_comes_has_a_deadline() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let header = frame(0x1, END_HEADERS | END_STREAM, 100);
        for sent in [1, 8, 9, 108] {
            let mut meter = meter(now);
            meter.read(&header[..sent], now).unwrap();
            assert_eq!(meter.open_since(), Some(now), "{sent}");
            meter.read(&header[sent..], later).unwrap();
            assert_eq!(meter.open_since(), None, "{sent}");
        }
        let mut meter = meter(now);
        meter.read(&frame(DATA, 0, 100)[..50], now).unwrap();
        assert_eq!(meter.open_since(), None, "a body has deadlines of its own");
        meter.read(&[&[0; 59], &header[..3]].concat(), later).unwrap();
        assert_eq!(meter.open_since(), Some(later));
    }

    #[test]
    fn the_preface_has_a_deadline_too() {
        let now = Instant::now();
        let mut meter = Meter::new(now, 1024);
        meter.read(&PREFACE[..23], now).unwrap();
        assert_eq!(header_deadline(&meter, now, Duration::from_secs(5)), Some(now + Duration::from_secs(5)));
        meter.read(&PREFACE[23..], now).unwrap();
        assert_eq!(header_deadline(&meter, now, Duration::from_secs(5)), None);
    }
}
