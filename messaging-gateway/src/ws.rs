//! The WebSocket: the upgrade, and the one task of a connection, which reads commands and writes what waits. Frames go out as
//! they were encoded for everybody, as many as there are in one write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::auth::is_within_depth;
use crate::code::{DisconnectCode, ErrorCode};
use crate::connection::{Connection, Transport};
use crate::descriptor::BoxFuture;
use crate::gateway::{Admitted, Shared};
use crate::limits::Limits;
use crate::native::{self, Nonsense, Said, Say};
use crate::outbox::{End, Item};
use crate::session::Session;

/// How many bytes are written at once.
const WRITE: usize = 64 << 10;
/// How many frames are.
const FRAMES: usize = 64;
/// A batch that has grown beyond this is given back.
const USUAL: usize = 16;
/// What is read at once: clients say little.
const READ_BUFFER: usize = 2 << 10;
/// How long a client has to take what ends its connection.
const GRACE: Duration = Duration::from_secs(1);

/// `GET /subscribe`.
pub(crate) async fn upgrade(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut request, _) = request.into_parts();
    let on_upgrade = request.extensions.remove::<OnUpgrade>();
    let (Some(accept), Some(on_upgrade)) = (accept(&request), on_upgrade) else {
        let version = [(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))];
        return (StatusCode::UPGRADE_REQUIRED, version, "this is a WebSocket").into_response();
    };
    let Admitted { shown, place, redeemed } = match shared.admit(&request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let open = shared.open(Transport::WebSocket, place);
    let session = Session::new(Arc::clone(&shared), open, shown.credentials, redeemed);
    let config = config(&shared.limits);
    shared.tasks.clone().spawn(async move {
        if let Ok(Ok(upgraded)) = timeout(shared.limits.unauthenticated, on_upgrade).await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            Client::new(socket, session, shared).run().await;
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = shown.subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// What the answer to a handshake says, if it is one (RFC 6455, section 4.2.1).
fn accept(request: &Parts) -> Option<HeaderValue> {
    let has = |name: &HeaderName, word: &str| {
        let words = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        words.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let is_one = request.method == Method::GET
        && has(&CONNECTION, "upgrade")
        && has(&UPGRADE, "websocket")
        && has(&SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers.get(SEC_WEBSOCKET_KEY).filter(|_| is_one)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Only answers to control frames go through it.
        .write_buffer_size(0)
        .max_write_buffer_size(READ_BUFFER)
        .max_message_size(Some(limits.message.get()))
        .max_frame_size(Some(limits.message.get()))
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A connection as its own task sees it.
struct Client {
    socket: Socket,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    doing: Doing,
    /// The last message, and up to where it has been read: each line when there is room for its answer, because lines are
    /// short and answers are not.
    said: (Utf8Bytes, usize),
}

/// What a client has it do.
enum Doing {
    Nothing(Box<Session>),
    Command(BoxFuture<'static, Box<Session>>),
}

/// What a connection waits for.
enum Event {
    Ready,
    Done(Box<Session>),
    Received(Option<Result<Message, tokio_tungstenite::tungstenite::Error>>),
}

impl Client {
    fn new(socket: Socket, session: Session, shared: Arc<Shared>) -> Self {
        let connection = Arc::clone(session.connection());
        Self {
            socket,
            shared,
            connection,
            doing: Doing::Nothing(Box::new(session)),
            said: Default::default(),
        }
    }

    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.connection.outbox.take(&mut batch, WRITE) {
                Some(End::Gone) => return,
                Some(End::Close(code)) => return self.close(code).await,
                None => {}
            }
            if !batch.is_empty() {
                if !self.write(&batch).await {
                    return;
                }
                batch.clear();
                if batch.capacity() > USUAL {
                    batch = Vec::new();
                }
                // There may be room for more answers now.
                self.begin();
                continue;
            }
            match self.next().await {
                Event::Ready => {}
                Event::Done(session) => self.doing = Doing::Nothing(session),
                Event::Received(Some(Ok(message))) => {
                    if !self.received(message) {
                        return;
                    }
                }
                Event::Received(Some(Err(error))) => {
                    let code = code_of(&error);
                    tracing::debug!(%error, "a WebSocket has ended");
                    match code {
                        Some(code) => self.connection.outbox.end(End::Close(code)),
                        None => return,
                    }
                }
                Event::Received(None) => return,
            }
            self.begin();
        }
    }

    async fn next(&mut self) -> Event {
        let outbox = &self.connection.outbox;
        match &mut self.doing {
            Doing::Command(command) => tokio::select! {
                () = outbox.ready() => Event::Ready,
                session = command => Event::Done(session),
            },
            // Who does not read may not ask for more.
            Doing::Nothing(_) if !outbox.has_room() || self.said.1 < self.said.0.len() => {
                outbox.ready().await;
                Event::Ready
            }
            Doing::Nothing(_) => tokio::select! {
                () = outbox.ready() => Event::Ready,
                received = self.socket.next() => Event::Received(received),
            },
        }
    }

    /// Takes up what has arrived. `false` if that ends it.
    fn received(&mut self, message: Message) -> bool {
        self.connection.note_heard();
        match message {
            Message::Text(text) => self.said = (text, 0),
            Message::Binary(_) => self.connection.outbox.end(End::Close(DisconnectCode::BadRequest)),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            Message::Close(_) => return false,
        }
        true
    }

    /// Begins with the next thing that the client has said, if there is nothing else to do.
    fn begin(&mut self) {
        while let Doing::Nothing(session) = &self.doing {
            if !self.connection.outbox.has_room() {
                return;
            }
            match next_said(&mut self.said, self.shared.limits.depth) {
                None => return,
                Some(Err(nonsense)) => session.refuse(&nonsense),
                Some(Ok(Said::Pong)) => {}
                Some(Ok(said)) => {
                    let gone: BoxFuture<'static, Box<Session>> = Box::pin(std::future::pending());
                    let Doing::Nothing(mut session) =
                        std::mem::replace(&mut self.doing, Doing::Command(gone))
                    else {
                        return;
                    };
                    self.doing = Doing::Command(Box::pin(async move {
                        session.handle(said).await;
                        session
                    }));
                }
            }
        }
    }

    /// Writes frames; `false` if the client does not take them.
    async fn write(&mut self, batch: &[Item]) -> bool {
        let writing = async {
            // An answer to a ping may be half written.
            self.socket.flush().await.map_err(io::Error::other)?;
            write_frames(self.socket.get_mut(), batch).await
        };
        let ended = async {
            self.connection.outbox.ended().await;
            tokio::time::sleep(GRACE).await;
        };
        let written = tokio::select! {
            biased;
            written = writing => written,
            () = ended => return false,
        };
        match written {
            Ok(bytes) => {
                self.shared.metrics.bytes.add(bytes);
                true
            }
            Err(_) => false,
        }
    }

    /// Tells the client why it ends, and gives it a moment to take that.
    async fn close(mut self, code: DisconnectCode) {
        // The channels need not wait for that.
        self.shared.leave(&self.connection);
        let reason = Utf8Bytes::from_static(code.reason());
        let frame = CloseFrame { code: CloseCode::from(code.number()), reason };
        let closing = async {
            let _ = self.socket.flush().await;
            let last = Item::Message(Say::disconnect(code).frame());
            write_frames(self.socket.get_mut(), std::slice::from_ref(&last)).await.ok()?;
            self.socket.close(Some(frame)).await.ok()?;
            while let Some(Ok(_)) = self.socket.next().await {}
            if code == DisconnectCode::BadRequest {
                // What it sent and nobody has read would make the kernel take back what it is told.
                let mut rest = [0; 1 << 10];
                while self.socket.get_mut().read(&mut rest).await.is_ok_and(|read| read > 0) {}
            }
            Some(())
        };
        // Whether it was taken or not, it is over.
        let _ = timeout(GRACE, closing).await;
    }
}

/// Reads the next line of a message, if there is one.
fn next_said(said: &mut (Utf8Bytes, usize), limit: NonZeroUsize) -> Option<Result<Said, Nonsense>> {
    let (text, read) = said;
    while *read < text.len() {
        let rest = &text.as_str()[*read..];
        let line = rest.split('\n').next().unwrap_or(rest);
        *read += line.len() + 1;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        return Some(if is_within_depth(line, limit) {
            native::read(line)
        } else {
            let reason = format!("it is nested deeper than {limit}");
            Err(Nonsense { id: None, code: ErrorCode::BadRequest, reason })
        });
    }
    // An idle connection keeps nothing.
    *said = Default::default();
    None
}

/// How a client that breaks the rules is told; nothing if it has just gone.
fn code_of(error: &tokio_tungstenite::tungstenite::Error) -> Option<DisconnectCode> {
    use tokio_tungstenite::tungstenite::Error;
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_) => Some(DisconnectCode::BadRequest),
        _ => None,
    }
}

/// Writes whole frames, many at once. Returns how many bytes those were.
async fn write_frames(stream: &mut (impl AsyncWrite + Unpin), batch: &[Item]) -> io::Result<u64> {
    let (mut first, mut skip, mut bytes) = (0, 0, 0);
    while first < batch.len() {
        let mut written = poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); FRAMES];
            let frames = batch[first..].iter().map(|item| &item.frame().wire()[..]);
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(frames) {
                let frame = if count == 0 { &frame[skip..] } else { frame };
                *slice = IoSlice::new(frame);
                count += 1;
            }
            Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes += written as u64;
        while first < batch.len() && written > 0 {
            let left = batch[first].frame().len() - skip;
            if written < left {
                skip += written;
                break;
            }
            written -= left;
            (first, skip) = (first + 1, 0);
        }
    }
    Ok(bytes)
}
