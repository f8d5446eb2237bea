use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::*;
use crate::activity::Activity;
use crate::backend;
use crate::dispatch::{Buffer, Overflow};

/// A supervisor without a task, which wants the channel `a`.
fn supervisor() -> (Supervisor, mpsc::UnboundedSender<Control>) {
    let config = Config::new("memory://").unwrap();
    let (control, inbox) = mpsc::unbounded_channel();
    let mut routes = Routes::new(Arc::default());
    let mailbox = Arc::new(Mailbox::for_subscription(Buffer::DEFAULT, Overflow::Wait));
    routes.add(mailbox, vec![Wire { kind: Kind::Channel, name: "a".to_owned() }]);
    let supervisor = Supervisor {
        label: "test".to_owned(),
        backend: Arc::new(Backend::new(&config, Activity::default()).unwrap()),
        config,
        inbox,
        stop: CancellationToken::new(),
        routes,
        asked: VecDeque::new(),
        requests: 0,
        status: Arc::default(),
        serving: false,
        generation: Arc::default(),
        skipped: Arc::default(),
        internal: ["msg:cache:", "msg:presence:"].map(str::to_owned),
        oversized: Burst::default(),
    };
    (supervisor, control)
}

async fn expect(redis: &mut DuplexStream, command: &str) {
    let mut heard = vec![0; command.len()];
    redis.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), command);
}

#[tokio::test(start_paused = true)]
async fn what_arrived_while_this_process_stood_still_shows_life() {
    let (mut supervisor, _control) = supervisor();
    let (near, mut redis) = tokio::io::duplex(1_000);
    let mut connection = Connection::Redis(Box::new(backend::RedisConnection::over(near)));
    let mut failures = 0;
    let mut serving = pin!(supervisor.serve(&mut connection, &mut failures));
    assert!((&mut serving).now_or_never().is_none());
    expect(&mut redis, "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n").await;
    redis.write_all(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").await.unwrap();
    // Often, because chance must not decide.
    for _ in 0..20 {
        assert!((&mut serving).now_or_never().is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((&mut serving).now_or_never().is_none());
        expect(&mut redis, "*1\r\n$4\r\nPING\r\n").await;
        redis.write_all(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n").await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    assert!((&mut serving).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!((&mut serving).now_or_never().is_none());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!((&mut serving).now_or_never().is_some(), "silence is not taken for health");
}

/// Refuses the first SUBSCRIBE and floods, until there is a second.
struct Flood {
    asked: Arc<Mutex<usize>>,
    refusal: &'static [u8],
    begun: std::time::Instant,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // As a socket does: now and then everything else gets its turn, but within a turn it always has something.
        std::task::ready!(tokio::task::coop::poll_proceed(context)).made_progress();
        let asked = *self.asked.lock().unwrap();
        if asked == 1 {
            buffer.put_slice(std::mem::take(&mut self.refusal));
        }
        // Whoever is not asked again by then never is.
        if asked < 2 && self.begun.elapsed() < Duration::from_secs(30) {
            buffer.put_slice(b"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\n1\r\n");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        *self.asked.lock().unwrap() += String::from_utf8_lossy(bytes).matches("SUBSCRIBE").count();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl backend::RedisStream for Flood {
    fn is_closed(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_flood_does_not_keep_what_was_refused_from_being_asked_again() {
    let (mut supervisor, _control) = supervisor();
    let asked = Arc::<Mutex<usize>>::default();
    let refusal = b"-NOPERM no\r\n";
    let flood = Flood { asked: Arc::clone(&asked), refusal, begun: std::time::Instant::now() };
    let mut connection = Connection::Redis(Box::new(backend::RedisConnection::over(flood)));
    let ended = supervisor.serve(&mut connection, &mut 0).await;
    assert!(matches!(ended, Ended::Lost(_)));
    assert_eq!(*asked.lock().unwrap(), 2);
}
