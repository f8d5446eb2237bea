//! The WebSocket: the upgrade, and the one task of a connection, which reads commands and writes what waits. Frames go out as
//! they were encoded for everybody, as many as there are in one write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
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
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::auth::is_within_depth;
use crate::code::{DisconnectCode, ErrorCode};
use crate::command::{Nonsense, Said};
use crate::connection::{Connection, Transport};
use crate::descriptor::BoxFuture;
use crate::gateway::{Admitted, Shared};
use crate::limits::Limits;
use crate::native::Say;
use crate::outbox::{End, Item};
use crate::protocol::Protocol;
use crate::session::Session;
use crate::stream::Stream;

/// How many bytes are written at once.
const WRITE: usize = 64 << 10;
/// How many slices are, each of one or more frames.
const SLICES: usize = 16;
/// A batch that has grown beyond this is given back.
const USUAL: usize = 16;
/// What is read at once: clients say little.
const READ_BUFFER: usize = 2 << 10;
/// How long a client has to take what ends its connection.
const GRACE: Duration = Duration::from_secs(1);

/// `GET /subscribe`.
pub(crate) async fn upgrade(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade_to(Protocol::Native, shared, request).await
}

/// `GET /connection/websocket`.
pub(crate) async fn upgrade_centrifugo(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade_to(Protocol::Centrifugo, shared, request).await
}

async fn upgrade_to(protocol: Protocol, shared: Arc<Shared>, request: Request) -> Response {
    let (mut request, _) = request.into_parts();
    if protocol == Protocol::Centrifugo && wants_protobuf(&request) {
        return (StatusCode::BAD_REQUEST, "this endpoint speaks JSON, not Protobuf").into_response();
    }
    let on_upgrade = request.extensions.remove::<OnUpgrade>();
    let (Some(accept), Some(on_upgrade)) = (accept(&request), on_upgrade) else {
        let version = [(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))];
        return (StatusCode::UPGRADE_REQUIRED, version, "this is a WebSocket").into_response();
    };
    let Admitted { shown, place, redeemed } = match shared.admit(&request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let open = match shared.open(Transport::WebSocket(protocol), place) {
        Ok(open) => open,
        Err(refusal) => return refusal.into_response(),
    };
    let session = Session::new(Arc::clone(&shared), open, shown.credentials, redeemed);
    let config = config(&shared.limits);
    shared.tasks.clone().spawn(async move {
        if let Ok(Ok(upgraded)) = timeout(shared.limits.unauthenticated, on_upgrade).await {
            let (stream, read) = Stream::of(upgraded);
            let socket =
                WebSocketStream::from_partially_read(stream, read.into(), Role::Server, Some(config)).await;
            Client::new(socket, session, shared).run().await;
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = shown.subprotocol.or_else(|| json_of_centrifugo(protocol, &request)) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// The words of a header that is a list of them.
fn words<'r>(request: &'r Parts, name: &HeaderName) -> impl Iterator<Item = &'r str> + use<'r> {
    let lines = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether a client of Centrifugo's asks for the other encoding, which there is not.
fn wants_protobuf(request: &Parts) -> bool {
    let mut parameters = request.uri.query().unwrap_or_default().split('&');
    words(request, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == "centrifuge-protobuf")
        || parameters.any(|pair| matches!(pair, "format=protobuf" | "cf_protocol=protobuf"))
}

/// The name of the encoding that there is, for who asks for it.
fn json_of_centrifugo(protocol: Protocol, request: &Parts) -> Option<&'static str> {
    const NAME: &str = "centrifuge-json";
    let is_asked = || words(request, &SEC_WEBSOCKET_PROTOCOL).any(|word| word == NAME);
    (protocol == Protocol::Centrifugo && is_asked()).then_some(NAME)
}

/// What the answer to a handshake says, if it is one (RFC 6455, section 4.2.1).
fn accept(request: &Parts) -> Option<HeaderValue> {
    let has =
        |name: &HeaderName, word: &str| words(request, name).any(|value| value.eq_ignore_ascii_case(word));
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

type Socket = WebSocketStream<Stream>;

/// A connection as its own task sees it.
struct Client {
    socket: Socket,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    doing: Doing,
    /// What came with the command that is being carried out.
    said: Lines,
}

/// A message, read line by line.
#[derive(Default)]
struct Lines {
    text: Utf8Bytes,
    /// Up to where it has been read.
    read: usize,
}

impl Lines {
    /// The next line that has something in it.
    fn next(&mut self) -> Option<&str> {
        let begin = loop {
            let (begin, rest) = (self.read, &self.text.as_str()[self.read..]);
            let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
            let is_blank = rest[..length].trim().is_empty();
            self.read += length;
            if length == 0 {
                *self = Self::default();
                return None;
            }
            if !is_blank {
                break begin;
            }
        };
        Some(self.text.as_str()[begin..self.read].trim())
    }
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
        Self { socket, shared, connection, doing: Doing::Nothing(Box::new(session)), said: Lines::default() }
    }

    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.connection.outbox.take(&mut batch, WRITE) {
                Some(End::Gone) => return,
                // In a box of its own: idle connections are many, and each has room for this.
                Some(End::Close(code)) => return Box::pin(self.close(code)).await,
                None => {}
            }
            let event = if batch.is_empty() {
                self.next().await
            } else {
                if !self.write(&batch).await {
                    return;
                }
                batch.clear();
                if batch.capacity() > USUAL {
                    batch = Vec::new();
                }
                // Who never catches up is heard all the same.
                if self.connection.outbox.is_empty() { None } else { self.next_now() }.unwrap_or(Event::Ready)
            };
            match event {
                Event::Ready => {}
                Event::Done(session) => self.done(session),
                Event::Received(Some(Ok(Message::Close(_)))) => return Box::pin(self.confirm_close()).await,
                Event::Received(Some(Ok(message))) => self.received(message),
                Event::Received(Some(Err(error))) => {
                    tracing::debug!(%error, "a WebSocket has ended");
                    match code_of(&error) {
                        Some(code) => self.connection.outbox.end(End::Close(code)),
                        None => return,
                    }
                }
                Event::Received(None) => return,
            }
            self.begin();
        }
    }

    /// A command has been carried out.
    fn done(&mut self, session: Box<Session>) {
        self.connection.note_busy(false);
        self.doing = Doing::Nothing(session);
    }

    async fn next(&mut self) -> Event {
        let outbox = &self.connection.outbox;
        match &mut self.doing {
            Doing::Command(command) => tokio::select! {
                biased;
                () = outbox.ready() => Event::Ready,
                session = command => Event::Done(session),
            },
            // Who does not read may not ask for more.
            Doing::Nothing(_) if !outbox.has_room() => {
                outbox.ready().await;
                Event::Ready
            }
            Doing::Nothing(_) => tokio::select! {
                biased;
                () = outbox.ready() => Event::Ready,
                received = self.socket.next() => Event::Received(received),
            },
        }
    }

    /// What has come, without waiting, whatever there is to write.
    fn next_now(&mut self) -> Option<Event> {
        match &mut self.doing {
            Doing::Command(command) => command.now_or_never().map(Event::Done),
            Doing::Nothing(_) if !self.connection.outbox.has_room() => None,
            Doing::Nothing(_) => self.socket.next().now_or_never().map(Event::Received),
        }
    }

    /// Takes up what has arrived.
    fn received(&mut self, message: Message) {
        self.connection.note_heard();
        match message {
            // The one before has been read to its end, or this one would not have been taken.
            Message::Text(text) => self.said = Lines { text, read: 0 },
            Message::Binary(_) => self.connection.outbox.end(End::Close(DisconnectCode::BadRequest)),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_) => {}
        }
    }

    /// The next thing that the client has said.
    fn next_said(&mut self) -> Option<Result<Said, Nonsense>> {
        let (limit, protocol) = (self.shared.limits.depth, self.connection.protocol());
        let line = self.said.next()?;
        if is_within_depth(line, limit) {
            return Some(protocol.read(line));
        }
        let reason = format!("it is nested deeper than {limit}");
        let is_fatal = protocol == Protocol::Centrifugo;
        Some(Err(Nonsense { id: None, code: ErrorCode::BadRequest, reason, is_fatal }))
    }

    /// The client ends it, and hears that this was understood.
    async fn confirm_close(mut self) {
        self.shared.let_go(&self.connection);
        let closing = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // Whether it waits for that or not, it is over.
        let _ = timeout(GRACE, closing).await;
    }

    /// Begins with the next thing that the client has said, if there is nothing else to do, and room for its answer.
    fn begin(&mut self) {
        while matches!(self.doing, Doing::Nothing(_)) && self.connection.outbox.has_room() {
            let Some(said) = self.next_said() else { return };
            let Doing::Nothing(session) = &mut self.doing else { return };
            match said {
                Err(nonsense) => session.refuse(&nonsense),
                Ok(Said::Pong) => session.pong(),
                Ok(said) => {
                    let gone: BoxFuture<'static, Box<Session>> = Box::pin(std::future::pending());
                    self.connection.note_busy(true);
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

    /// Writes frames; `false` if the client does not take them. A command goes on meanwhile: it may hold what others need.
    async fn write(&mut self, batch: &[Item]) -> bool {
        let Self { socket, connection, doing, .. } = self;
        let writing = async {
            // An answer to a ping may be half written.
            socket.flush().await.map_err(io::Error::other)?;
            write_frames(socket.get_mut(), batch).await
        };
        let ended = async {
            connection.outbox.ended().await;
            tokio::time::sleep(GRACE).await;
        };
        let (mut writing, mut ended) = (pin!(writing), pin!(ended));
        let written = loop {
            let command = async {
                match doing {
                    Doing::Command(command) => command.await,
                    Doing::Nothing(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                written = &mut writing => break written,
                session = command => {
                    connection.note_busy(false);
                    *doing = Doing::Nothing(session);
                }
                () = &mut ended => return false,
            }
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
        self.shared.let_go(&self.connection);
        let reason = Utf8Bytes::from_static(code.reason());
        let frame = CloseFrame { code: CloseCode::from(code.number()), reason };
        let closing = async {
            let _ = self.socket.flush().await;
            // Where the protocol has no words for it, the code of the close frame says it.
            if let Some(last) = self.connection.protocol().frame(&Say::disconnect(code)) {
                let last = Item::Message(Box::new(last));
                write_frames(self.socket.get_mut(), std::slice::from_ref(&last)).await.ok()?;
            }
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
            let stream = Pin::new(&mut *stream);
            if let [item] = &batch[first..] {
                return stream.poll_write(context, &item.wire()[skip..]);
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let wires = batch[first..].iter().map(|item| &item.wire()[..]);
            let mut count = 0;
            for (slice, wire) in slices.iter_mut().zip(wires) {
                *slice = IoSlice::new(if count == 0 { &wire[skip..] } else { wire });
                count += 1;
            }
            stream.poll_write_vectored(context, &slices[..count])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes += written as u64;
        while first < batch.len() && written > 0 {
            let left = batch[first].wire().len() - skip;
            if written < left {
                skip += written;
                break;
            }
            written -= left;
            (first, skip) = (first + 1, 0);
        }
    }
    // TLS may keep what it has taken.
    stream.flush().await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufWriter;

    #[tokio::test]
    async fn what_is_written_does_not_stay_in_the_stream() {
        // As TLS does when the socket is full, it keeps what it has taken until it is flushed.
        let (here, mut there) = tokio::io::duplex(1 << 10);
        let mut stream = BufWriter::new(here);
        write_frames(&mut stream, &[Item::Message(Box::new(Say::Ping.frame()))]).await.unwrap();
        let mut read = [0; 64];
        let read = timeout(Duration::from_secs(5), there.read(&mut read)).await;
        assert!(read.is_ok(), "the frame is still in the stream's buffer");
    }
}
