//! The files that deploy examples, as what is in them.

use messaging_tests::Python;
use serde_json::Value;

use crate::programs::repository;

/// What deploys an example: `compose`, and the `manifests`, which fit the schemas of Kubernetes. `None` without a Python that has
/// what reads the files: the test has nothing to do then, and `cargo xtask test` says so.
pub(super) async fn deployment(example: &str) -> Option<Value> {
    let python = Python::with(&["kubernetes_validate", "yaml"])?;
    let directory = repository().join("examples/deploy").join(example);
    let directory = directory.to_str().expect("the repository has a readable name");
    let mut script = python.run(include_str!("../../../python/deployment.py"), &[directory]);
    let read = script.read_line().await;
    script.finish().await;
    Some(serde_json::from_str(&read).expect("the script answers in JSON"))
}
