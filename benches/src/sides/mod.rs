//! What is measured: for each job our way, the `redis` crate's, and where it makes sense a way by hand.

pub(crate) mod hand;
pub(crate) mod ours;
pub(crate) mod queue;
pub(crate) mod raw;

use tokio::task::JoinSet;

use crate::job::{Failure, Report};
use crate::meter;

/// Measures `total` operations in `tasks` tasks; each is given its number and how many it has to do.
pub(crate) async fn each_in_a_task<F>(
    tasks: u64,
    total: u64,
    work: impl Fn(u64, u64) -> F,
) -> Result<Report, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let each = total / tasks;
    meter::operations(each * tasks, async {
        let mut running: JoinSet<_> = (0..tasks).map(|task| work(task, each)).collect();
        while let Some(done) = running.join_next().await {
            done??;
        }
        Ok(())
    })
    .await
}
