//! What a program does for clients beside telling them events: functions that they call, and messages that they send. Only
//! the protocol of Centrifugo has these.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use messaging_core::{BoxError, Messaging};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::access::States;
use crate::code::ErrorCode;
use crate::descriptor::BoxFuture;
use crate::identity::Identity;

/// What a client calls or sends: the argument of [`Builder::rpc`](crate::Builder::rpc) and
/// [`Builder::on_message`](crate::Builder::on_message).
#[derive(Clone)]
pub struct ClientRequest(pub(crate) Arc<Requested>);

pub(crate) struct Requested {
    pub(crate) identity: Arc<Identity>,
    pub(crate) client: Box<str>,
    pub(crate) method: String,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) states: Arc<States>,
    pub(crate) messaging: Messaging,
}

impl ClientRequest {
    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Which of their connections asks.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.0.client
    }

    /// The function that is called; empty for what is sent.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// What came with it, decoded; nothing counts as `null`.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] if it is something else.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        let text = self.0.data.as_deref().map_or("null", RawValue::get);
        serde_json::from_str(text).map_err(|error| {
            let code = ErrorCode::BadRequest;
            RpcError::new(code.number(), format!("{}: {error}", code.message()))
        })
    }

    /// State that the gateway was built with.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.states.get()
    }

    /// The messaging that the gateway serves.
    #[must_use]
    pub fn messaging(&self) -> &Messaging {
        &self.0.messaging
    }
}

impl fmt::Debug for ClientRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRequest")
            .field("user", &self.0.identity.user)
            .field("method", &self.0.method)
            .finish_non_exhaustive()
    }
}

/// What a client is told whose call has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    code: u16,
    message: String,
    is_temporary: bool,
}

impl RpcError {
    /// A code and a text for the client. From 400 to 1999 codes are the program's own; smaller ones are those of [`ErrorCode`].
    #[must_use]
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), is_temporary: false }
    }

    /// Something that is nobody's business: it is logged, and the client is told that the server has failed and that it may try
    /// again.
    #[must_use]
    pub fn internal(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        tracing::error!(%error, "a function that a client has called failed");
        ErrorCode::Internal.into()
    }

    /// The same call may succeed later.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.is_temporary = true;
        self
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.is_temporary
    }
}

impl From<ErrorCode> for RpcError {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.number(), message: code.message().to_owned(), is_temporary: code.is_temporary() }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

type Called = Result<Box<RawValue>, RpcError>;
/// A function that clients call.
pub(crate) type Function = Arc<dyn Fn(ClientRequest) -> BoxFuture<'static, Called> + Send + Sync>;
/// What takes the messages that clients send.
pub(crate) type Listener = Arc<dyn Fn(ClientRequest) -> BoxFuture<'static, ()> + Send + Sync>;

/// Everything that clients can call, and what takes their messages.
#[derive(Default)]
pub(crate) struct Calls {
    functions: HashMap<String, Function>,
    listener: Option<Listener>,
}

impl Calls {
    pub(crate) fn add<F, Fut, T>(&mut self, method: String, function: F)
    where
        F: Fn(ClientRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        let boxed = move |request| -> BoxFuture<'static, Called> {
            let calling = function(request);
            Box::pin(async move {
                let returned = calling.await?;
                let text = serde_json::to_string(&returned).map_err(RpcError::internal)?;
                // What was JSON before may have several lines, and a line is a message: within its texts there is none.
                RawValue::from_string(text.replace(['\n', '\r'], " ")).map_err(RpcError::internal)
            })
        };
        self.functions.insert(method, Arc::new(boxed));
    }

    pub(crate) fn listen<F, Fut>(&mut self, listener: F)
    where
        F: Fn(ClientRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.listener = Some(Arc::new(move |request| Box::pin(listener(request))));
    }

    pub(crate) fn function(&self, method: &str) -> Option<&Function> {
        self.functions.get(method)
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("functions", &self.functions.keys())
            .field("listener", &self.listener.is_some())
            .finish()
    }
}
