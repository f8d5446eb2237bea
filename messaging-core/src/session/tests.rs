use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

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
    routes.add(mailbox, vec![Wire { glob: false, name: "a".to_owned() }]);
    let supervisor = Supervisor {
        backend: Arc::new(Backend::new(&config, Activity::default()).unwrap()),
        config,
        inbox,
        stop: CancellationToken::new(),
        routes,
        asked: VecDeque::new(),
        status: Arc::default(),
        serving: false,
        generation: 0,
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
