use std::time::{Duration, Instant};

use crate::{Context, Result};

/// How long anything local may take to start or to change state on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Polls until `probe` succeeds; its last error is told when `limit` passes first.
pub async fn until<T>(
    what: impl std::fmt::Display,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                return Err(error).context(format!("waited {} s for {what}", limit.as_secs()));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
