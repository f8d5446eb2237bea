//! Has no cached function.

use messaging_core::Result;

#[tokio::main]
async fn main() -> Result<()> {
    cached::run(async |_, version| version).await
}
