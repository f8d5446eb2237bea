//! Functions that clients call, and messages that they send.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{Failed, Session};
use crate::calls::{ClientRequest, Requested, RpcError};
use crate::code::{DisconnectCode, ErrorCode};
use crate::identity::Identity;
use crate::native::Say;

/// How many calls of one client run at the same time.
const MOST_CALLS: usize = 16;

impl Session {
    /// Calls a function of the program, and answers when that has ended.
    pub(super) fn call(
        &mut self,
        id: u64,
        identity: Arc<Identity>,
        method: String,
        data: Option<Box<RawValue>>,
    ) -> Result<(), Failed> {
        let Some(function) = self.shared.calls.function(&method).cloned() else {
            return Err(ErrorCode::MethodNotFound.into());
        };
        let request = self.request(identity, method, data);
        let calls = self.calls.get_or_insert_default();
        while calls.try_join_next().is_some() {}
        if calls.len() >= MOST_CALLS {
            self.shared.metrics.rejected.rate.increment();
            return Err(ErrorCode::TooManyRequests.into());
        }
        let (connection, limit) = (Arc::clone(&self.open.connection), self.shared.limits.decision);
        calls.spawn(async move {
            let method = request.0.method.clone();
            let calling = AssertUnwindSafe(async { function(request).await }).catch_unwind();
            let answer = match timeout(limit, calling).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(RpcError::internal(format!("`{method}` panicked"))),
                Err(_) => Err(RpcError::internal(format!("`{method}` took longer than {limit:?}"))),
            };
            match answer {
                Ok(data) => connection.say(&Say::Called { id, data: &data }),
                Err(error) => connection.say(&Say::Error {
                    id: Some(id),
                    code: error.code(),
                    message: error.message(),
                    temporary: error.is_temporary(),
                }),
            }
        });
        Ok(())
    }

    /// Gives the program what a client has sent.
    pub(super) async fn message(&mut self, data: Box<RawValue>) {
        let Some(identity) = self.connection().identity() else { return };
        if !self.sends.take(self.shared.limits.sends, std::time::Instant::now()) {
            self.shared.metrics.rejected.rate.increment();
            return self.end(DisconnectCode::TooManyRequests);
        }
        let Some(listener) = self.shared.calls.listener().cloned() else {
            return self.end(DisconnectCode::NotAvailable);
        };
        let request = self.request(identity, String::new(), Some(data));
        let listening = AssertUnwindSafe(async { listener(request).await }).catch_unwind();
        let limit = self.shared.limits.decision;
        match timeout(limit, listening).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("`on_message` panicked"),
            Err(_) => tracing::error!("`on_message` took longer than {limit:?}"),
        }
    }

    fn request(&self, identity: Arc<Identity>, method: String, data: Option<Box<RawValue>>) -> ClientRequest {
        ClientRequest(Arc::new(Requested {
            identity,
            client: self.connection().client.clone(),
            method,
            data,
            states: Arc::clone(&self.shared.states),
            messaging: self.shared.messaging.clone(),
        }))
    }
}
