//! What is measured: for each job our way, the `redis` crate's, and where it makes sense a way by hand.

pub(crate) mod cache;
pub(crate) mod gateway;
pub(crate) mod growth;
pub(crate) mod hand;
pub(crate) mod local;
pub(crate) mod ours;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod sql;
