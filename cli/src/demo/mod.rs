use support::Result;

use crate::args::DemoArgs;

pub async fn run(_args: DemoArgs) -> Result<()> {
    Ok(())
}
