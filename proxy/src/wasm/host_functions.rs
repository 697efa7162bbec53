//! What guests may call: the log, and what counts how often something happens.

use wasmtime::error::format_err;

use super::guest::control::latchkey::edge::log::{Host, Level};
use super::guest::control::latchkey::edge::rates;
use super::limits::State;
use super::verify::shown;
use crate::observe::METRICS;

/// A longer message is cut.
const MESSAGE_CHARS_MAX: usize = 512;

impl Host for State {
    fn enabled(&mut self, level: Level) -> bool {
        self.log_bytes_left > 0
            && self.rates.as_ref().is_none_or(|rates| rates.says.has_room())
            && match level {
                Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
                Level::Info => tracing::enabled!(tracing::Level::INFO),
                Level::Warn => tracing::enabled!(tracing::Level::WARN),
                Level::Error => tracing::enabled!(tracing::Level::ERROR),
            }
    }

    fn write(&mut self, level: Level, message: String) {
        if self.log_bytes_left == 0 {
            return;
        }
        let message = shown(&message, MESSAGE_CHARS_MAX);
        self.log_bytes_left = self.log_bytes_left.saturating_sub(message.len());
        let plugin = &*self.plugin;
        let left_out = match self.rates.as_ref().map(|rates| rates.says.take(&message)) {
            Some(None) => return METRICS.plugin_log_left_out.with_label_values(&[plugin]).inc(),
            Some(Some(count)) => Some(count).filter(|count| *count > 0),
            None => None,
        };
        match level {
            Level::Debug => tracing::debug!(plugin, left_out, "{message}"),
            Level::Info => tracing::info!(plugin, left_out, "{message}"),
            Level::Warn => tracing::warn!(plugin, left_out, "{message}"),
            Level::Error => tracing::error!(plugin, left_out, "{message}"),
        }
    }
}

impl rates::Host for State {
    fn take(&mut self, key: Vec<u8>, rate: rates::Rate) -> wasmtime::Result<bool> {
        let Some(rates) = &self.rates else { return Err(format_err!("rates are for what serves, not for `plan`")) };
        Ok(rates.take(&key, rate.per_minute, rate.burst))
    }
}
