//! What a connection may take.

use std::time::Duration;

/// From the boot file's `[limits]`.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a request to the end of its header, and from the end of TLS to the first byte.
    pub header_timeout: Duration,
    /// Between two requests on an HTTP/1 connection.
    pub keepalive_timeout: Duration,
    /// An HTTP/2 connection without an open stream; pings do not prolong it.
    pub h2_idle_timeout: Duration,
    /// Without a byte of a body that is being sent, or read.
    pub stall_timeout: Duration,
    /// Bytes per second that a body must make on the whole, after `stall_timeout`.
    pub body_rate_min: u64,
    /// Bytes of a request's header fields.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// Header bytes of all open requests of one connection, and of the process.
    pub open_header_bytes_max: usize,
    pub open_header_bytes_total_max: usize,
    /// Bytes of path and query.
    pub uri_bytes_max: usize,
    pub body_bytes_max: u64,
    pub h2_streams_max: u32,
    /// Open at once from one client address; 0 for no limit.
    pub connections_per_client_max: u32,
}

/// Why a connection was ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("no whole request header within header_timeout_ms")]
    HeaderTimeout,
    #[error("no further request within the idle time-out")]
    Idle,
    #[error("the request body stalled for stall_timeout_ms")]
    BodyStalled,
    #[error("the request body comes slower than body_rate_min")]
    BodyTooSlow,
    #[error("the visitor does not read its response")]
    NotReading,
    #[error("a request header of more than header_bytes_max bytes")]
    HeaderTooLarge,
    #[error("more {0} frames than a visitor has use for")]
    Flood(&'static str),
    #[error("a header block of too many frames or bytes")]
    HeaderBlock,
}

impl Exceeded {
    /// Label of the counter.
    pub fn reason(self) -> &'static str {
        match self {
            Self::HeaderTimeout => "header_timeout",
            Self::Idle => "idle",
            Self::BodyStalled => "body_stalled",
            Self::BodyTooSlow => "body_too_slow",
            Self::NotReading => "not_reading",
            Self::HeaderTooLarge => "header_too_large",
            Self::Flood(_) => "h2_flood",
            Self::HeaderBlock => "h2_header_block",
        }
    }

    /// What an HTTP/1 visitor is told before the connection ends; nothing after a quiet idle.
    pub(super) fn http1_answer(self) -> Option<&'static [u8]> {
        match self {
            Self::HeaderTimeout | Self::BodyStalled | Self::BodyTooSlow => {
                Some(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            }
            Self::HeaderTooLarge => {
                Some(b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) fn test_limits() -> Limits {
    Limits {
        header_timeout: Duration::from_secs(10),
        keepalive_timeout: Duration::from_secs(60),
        h2_idle_timeout: Duration::from_secs(60),
        stall_timeout: Duration::from_secs(30),
        body_rate_min: 500,
        header_bytes_max: 32 * 1024,
        headers_max: 100,
        open_header_bytes_max: 1 << 20,
        open_header_bytes_total_max: 256 << 20,
        uri_bytes_max: 8192,
        body_bytes_max: 1 << 30,
        h2_streams_max: 100,
        connections_per_client_max: 512,
    }
}
