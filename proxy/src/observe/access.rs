//! One line of the access log: a request as a JSON object. Pure: facts in, bytes out.
//!
//! What a visitor or an upstream chose is escaped and cut at a length; no header value and no body is ever in it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::connection::Introduction;

/// Longer texts are cut, in bytes. Host names are shorter.
const METHOD_BYTES_MAX: usize = 32;
const HOST_BYTES_MAX: usize = 256;
/// Of a plugin, an upstream or a listener.
const NAME_BYTES_MAX: usize = 64;
/// All that a PROXY header may say.
const UNIQUE_ID_BYTES_MAX: usize = 128;
const TARGET_BYTES_MAX: usize = 1024;
const ERROR_BYTES_MAX: usize = 256;
const PLUGINS_MAX: usize = 32;
/// A byte becomes at most six (`\u0000`); the names of settings are short.
pub(super) const LINE_BYTES_MAX: usize = 32 * 1024;

/// All that a line tells. What is not known is left out of it.
#[derive(Default)]
pub struct Record<'a> {
    /// Since 1970.
    pub at: Duration,
    pub id: u64,
    pub listener: &'a str,
    pub client: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
    /// From a trusted PROXY header.
    pub introduction: Option<&'a Introduction>,
    pub tls: Option<Tls<'a>>,
    /// As it was validated.
    pub host: Option<&'a str>,
    /// As it came, where it is not valid.
    pub host_sent: Option<&'a [u8]>,
    pub method: &'a str,
    pub path: &'a str,
    /// Only where the operator asked for it.
    pub query: Option<&'a str>,
    pub http: &'static str,
    pub status: u16,
    pub body_bytes_in: u64,
    pub body_bytes_out: u64,
    pub duration: Duration,
    /// `upstream`, or the reason that the edge answered itself.
    pub answer: &'static str,
    pub plugins: &'a [PluginCall<'a>],
    pub upstream: Option<Upstream<'a>>,
    pub fault: Option<Fault<'a>>,
    pub revision: u64,
}

#[derive(Clone, Copy)]
pub struct Tls<'a> {
    pub sni: Option<&'a str>,
    pub version: &'a str,
    pub cipher: &'a str,
    pub group: Option<&'a str>,
    pub resumed: bool,
    /// Where the certificate came from.
    pub tier: &'a str,
}

/// One plugin's part in a request: both its hooks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginCall<'a> {
    pub name: &'a str,
    pub micros: u64,
    /// For other servers, beside that.
    pub waited_micros: u64,
    pub verdict: &'static str,
}

#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    pub name: &'a str,
    pub address: Option<SocketAddr>,
    pub tries: u32,
    pub reused: bool,
    /// Of the last try: until there was a connection, and from then to the head of the answer.
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
}

#[derive(Clone, Copy)]
pub struct Fault<'a> {
    pub culprit: &'static str,
    pub error: &'a str,
}

impl Record<'_> {
    /// Appends the line, its end included.
    pub fn render(&self, out: &mut Vec<u8>) {
        let mut line = Line(out);
        line.0.push(b'{');
        line.time("time", self.at);
        line.id("id", self.id);
        line.text("listener", self.listener.as_bytes(), NAME_BYTES_MAX);
        line.address("client", self.client);
        line.address("peer", self.peer);
        if let Some(introduction) = self.introduction {
            line.introduction(introduction);
        }
        if let Some(tls) = self.tls {
            line.tls(tls);
        }
        line.text_if("host", self.host.map(str::as_bytes), HOST_BYTES_MAX);
        line.text_if("host_sent", self.host_sent, HOST_BYTES_MAX);
        if !self.method.is_empty() {
            line.text("method", self.method.as_bytes(), METHOD_BYTES_MAX);
            line.text("path", self.path.as_bytes(), TARGET_BYTES_MAX);
        }
        line.text_if("query", self.query.map(str::as_bytes), TARGET_BYTES_MAX);
        if !self.http.is_empty() {
            line.plain("http", self.http);
        }
        line.number("status", self.status.into());
        line.number("body_bytes_in", self.body_bytes_in);
        line.number("body_bytes_out", self.body_bytes_out);
        line.micros("duration_us", Some(self.duration));
        line.plain("answer", self.answer);
        line.plugins(self.plugins);
        if let Some(upstream) = self.upstream {
            line.upstream(upstream);
        }
        if let Some(fault) = self.fault {
            line.plain("culprit", fault.culprit);
            line.text("error", fault.error.as_bytes(), ERROR_BYTES_MAX);
        }
        line.number("revision", self.revision);
        line.0.extend_from_slice(b"}\n");
    }
}

/// An object that is being written.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn introduction(&mut self, said: &Introduction) {
        self.text_if("unique_id", said.unique_id.as_deref(), UNIQUE_ID_BYTES_MAX);
        self.text_if("aws_vpce_id", said.aws_vpce_id.as_deref().map(str::as_bytes), NAME_BYTES_MAX);
        if let Some(id) = said.azure_link_id {
            self.number("azure_link_id", id.into());
        }
        // As a text: readers of JSON may keep 53 bits of a number.
        if let Some(id) = said.gcp_psc_id {
            self.plain("gcp_psc_id", &id.to_string());
        }
    }

    fn tls(&mut self, tls: Tls<'_>) {
        self.text_if("sni", tls.sni.map(str::as_bytes), HOST_BYTES_MAX);
        self.plain("tls", tls.version);
        self.plain("cipher", tls.cipher);
        if let Some(group) = tls.group {
            self.plain("group", group);
        }
        self.flag("resumed", tls.resumed);
        self.plain("tier", tls.tier);
    }

    fn plugins(&mut self, calls: &[PluginCall<'_>]) {
        if calls.is_empty() {
            return;
        }
        self.name("plugins");
        self.0.push(b'[');
        for call in &calls[..calls.len().min(PLUGINS_MAX)] {
            if self.0.last() == Some(&b'}') {
                self.0.push(b',');
            }
            self.0.push(b'{');
            self.text("name", call.name.as_bytes(), NAME_BYTES_MAX);
            self.number("us", call.micros);
            if call.waited_micros > 0 {
                self.number("waited_us", call.waited_micros);
            }
            self.plain("verdict", call.verdict);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    fn upstream(&mut self, upstream: Upstream<'_>) {
        self.text("upstream", upstream.name.as_bytes(), NAME_BYTES_MAX);
        self.address("upstream_address", upstream.address);
        self.number("tries", upstream.tries.into());
        self.flag("reused", upstream.reused);
        self.micros("connect_us", upstream.connect);
        self.micros("first_byte_us", upstream.first_byte);
    }

    fn name(&mut self, name: &str) {
        if !matches!(self.0.last(), Some(b'{')) {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// What is ours: nothing in it needs an escape.
    fn plain(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    fn text_if(&mut self, name: &str, value: Option<&[u8]>, bytes_max: usize) {
        if let Some(value) = value {
            self.text(name, value, bytes_max);
        }
    }

    fn text(&mut self, name: &str, value: &[u8], bytes_max: usize) {
        self.name(name);
        self.0.push(b'"');
        escape(self.0, &value[..value.len().min(bytes_max)]);
        if value.len() > bytes_max {
            self.0.extend_from_slice("…".as_bytes());
        }
        self.0.push(b'"');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        digits(self.0, value, 1);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn micros(&mut self, name: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.number(name, u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn address(&mut self, name: &str, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        self.name(name);
        self.0.push(b'"');
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.0.push(b'.');
                    }
                    digits(self.0, octet.into(), 1);
                }
            }
            IpAddr::V6(ip) => self.0.extend_from_slice(format!("[{ip}]").as_bytes()),
        }
        self.0.push(b':');
        digits(self.0, address.port().into(), 1);
        self.0.push(b'"');
    }

    fn id(&mut self, name: &str, id: u64) {
        self.name(name);
        self.0.push(b'"');
        for nibble in (0..16).rev() {
            self.0.push(HEX[(id >> (nibble * 4) & 0xf) as usize]);
        }
        self.0.push(b'"');
    }

    /// RFC 3339, in UTC, with microseconds.
    fn time(&mut self, name: &str, since_1970: Duration) {
        self.name(name);
        let (days, second) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
        let (year, month, day) = date(days);
        for (before, value, width) in [
            (b'"', year, 4),
            (b'-', month, 2),
            (b'-', day, 2),
            (b'T', second / 3600, 2),
            (b':', second / 60 % 60, 2),
            (b':', second % 60, 2),
            (b'.', since_1970.subsec_micros().into(), 6),
        ] {
            self.0.push(before);
            digits(self.0, value, width);
        }
        self.0.extend_from_slice(b"Z\"");
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// RFC 8259 section 7, and no more: whatever is not UTF-8 is shown as the character of its byte, so that a line is always
/// valid JSON.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 | 0x7f => unicode(out, byte),
                _ => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|&byte| unicode(out, byte));
    }
}

fn unicode(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}

/// In decimal, with zeros before it up to `width`.
fn digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while value > 0 {
        at -= 1;
        buffer[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&buffer[at.min(buffer.len() - width)..]);
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the leap day is the last; eras of 400 years begin in the year 0.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// The clock that lines are dated with.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
