use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::super::{Answer, Pipe};
use super::*;
use crate::backend::redis::connection::Watch;
use crate::backend::redis::push::Decoder;
use crate::backend::redis::topology::Locator;
use crate::config::{Config, Kind};
use crate::error::ErrorKind;
use crate::retry::deadline;

const TIMEOUT: Duration = Duration::from_secs(2);

/// A pipe whose connections go to this port.
fn pipe(port: u16) -> Pipe {
    pipe_at(&format!("127.0.0.1:{port}"))
}

fn pipe_at(place: &str) -> Pipe {
    let config = Config::new(&format!("redis://{place}")).unwrap();
    let Kind::Redis(server) = &config.endpoint.0 else { unreachable!() };
    let locator = Arc::new(Locator::new(server, &config).unwrap());
    let dialer = Dialer::new(server, &config, locator).unwrap();
    Pipe::new(&Arc::new(dialer), Role::Publisher, (TIMEOUT, TIMEOUT), config.endpoint.to_string(), None)
}

/// A driver that the test drives, and what callers hand over to.
fn driver() -> (Pipe, Driver) {
    let pipe = pipe(1);
    let driver = Driver::new(Arc::clone(&pipe.shared), Arc::clone(&pipe.dialer), Role::Publisher);
    pipe.shared.queue().driven_by = Some(Handle::current().id());
    (pipe, driver)
}

fn hand_over(pipe: &Pipe, bytes: &[u8]) -> oneshot::Receiver<Answer> {
    hand_over_until(pipe, bytes, Instant::now() + TIMEOUT)
}

fn hand_over_until(pipe: &Pipe, bytes: &[u8], deadline: Instant) -> oneshot::Receiver<Answer> {
    let sent = pipe.try_send(deadline, 1, &|out: &mut Vec<u8>| out.extend_from_slice(bytes));
    sent.unwrap().expect("there is room").answer
}

/// What became of a request: `None` while it waits, then whether it is said to be "not sent".
fn not_sent(answer: &mut oneshot::Receiver<Answer>) -> Option<bool> {
    match answer.try_recv() {
        Ok(Ok(_)) => Some(false),
        Ok(Err(lost)) => Some(lost.not_sent),
        Err(_) => None,
    }
}

fn dialled(stream: DuplexStream) -> Dialled {
    let (buffer, decoder) = (BytesMut::new(), Decoder::of_commands());
    Dialled { stream: Box::new(stream), buffer, decoder, watch: Watch::default() }
}

/// One turn of a driver's life.
#[derive(Clone, Debug)]
enum Turn {
    /// So many bytes, by a caller who has waited for room so long.
    Ask(usize, u64),
    TakeUp,
    Write(usize),
    Answer,
    /// Time passes; what was asked so long ago expires.
    Pass(u64),
    Lose,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (1usize..9, 0u64..1_900).prop_map(|(size, waited)| Turn::Ask(size, waited)),
        3 => Just(Turn::TakeUp),
        4 => (1usize..20).prop_map(Turn::Write),
        3 => Just(Turn::Answer),
        2 => (0u64..1_500).prop_map(Turn::Pass),
        1 => Just(Turn::Lose),
    ]
}

proptest! {
    /// Each request is a run of its own number; so what a connection carried shows what was sent of it.
    #[test]
    fn not_sent_is_never_said_of_what_has_left(turns in proptest::collection::vec(turn(), 1..80)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (pipe, mut driver) = driver();
            let mut requests = Vec::new();
            let mut carried = vec![Vec::new()];
            for turn in turns {
                match turn {
                    Turn::Ask(size, waited) => {
                        let number = u8::try_from(requests.len()).unwrap();
                        let deadline = Instant::now() + TIMEOUT - Duration::from_millis(waited);
                        let answer = hand_over_until(&pipe, &vec![number; size], deadline);
                        requests.push((size, answer, None));
                    }
                    Turn::TakeUp => driver.take_up(),
                    Turn::Write(most) => {
                        let unwritten = &driver.out[driver.written..];
                        let now = most.min(unwritten.len());
                        carried.last_mut().unwrap().extend_from_slice(&unwritten[..now]);
                        driver.wrote(now);
                    }
                    // Redis answers what it has received in whole.
                    Turn::Answer if driver.asked.len() > usize::from(driver.rest_of_asked > 0) => {
                        assert!(driver.answered(Push::Reply(Reply::Integer(1))));
                    }
                    Turn::Answer => {}
                    Turn::Pass(millis) => {
                        tokio::time::advance(Duration::from_millis(millis)).await;
                        driver.expire(Instant::now());
                        let next = driver.next_deadline();
                        prop_assert!(next.is_none_or(|next| next > Instant::now()), "somebody has waited too long");
                    }
                    Turn::Lose => {
                        driver.lose(closed());
                        carried.push(Vec::new());
                    }
                }
                for (_, answer, told) in &mut requests {
                    *told = told.or_else(|| not_sent(answer));
                }
            }
            for (number, (size, _, told)) in requests.iter().enumerate() {
                let of_it = |bytes: &Vec<u8>| bytes.iter().filter(|byte| usize::from(**byte) == number).count();
                let sent: Vec<usize> = carried.iter().map(of_it).filter(|count| *count > 0).collect();
                prop_assert!(sent.len() <= 1, "request {number} went out twice");
                match told {
                    Some(true) => prop_assert_eq!(sent, Vec::<usize>::new(), "request {} was said not to be sent", number),
                    Some(false) => prop_assert_eq!(sent.len(), 1, "request {} was not sent", number),
                    None => {}
                }
                // Only the last request on a connection can be cut off.
                for bytes in carried.iter().filter(|bytes| (1..*size).contains(&of_it(bytes))) {
                    prop_assert_eq!(usize::from(*bytes.last().unwrap()), number);
                }
            }
            for bytes in carried {
                prop_assert!(bytes.is_sorted(), "the order is kept: {:?}", bytes);
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_left_is_lost_with_the_connection_and_the_rest_goes_out_on_the_next() {
    let (pipe, mut driver) = driver();
    let (near, far) = tokio::io::duplex(10);
    let mut sent = hand_over(&pipe, b"*1\r\n$4\r\nPING\r\n");
    let mut unsent = hand_over(&pipe, b"*1\r\n$4\r\nPONG\r\n");
    pipe.shared.work.notify_one();
    let serving = driver.serve(dialled(near));
    let cut = async {
        // Nobody reads at the far end; ten bytes fit in.
        while driver_took_nothing(&pipe) {
            yield_now().await;
        }
        sleep(TIMEOUT / 2).await;
        drop(far);
    };
    let (ended, ()) = tokio::join!(serving, cut);
    assert!(!ended.fruitful);
    driver.lose(ended.error);
    assert_eq!(not_sent(&mut sent), Some(false));
    assert_eq!(not_sent(&mut unsent), None);
    assert_eq!(driver.out, b"*1\r\n$4\r\nPONG\r\n");
    driver.fail_unsent(&Lost::new(closed(), true));
    assert_eq!(not_sent(&mut unsent), Some(true));
}

fn driver_took_nothing(pipe: &Pipe) -> bool {
    !pipe.shared.queue().requests.is_empty()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_and_a_slow_one_is_not() {
    for answers in [false, true] {
        let (pipe, mut driver) = driver();
        let (near, mut far) = tokio::io::duplex(1_000);
        let mut late = hand_over(&pipe, b"1");
        pipe.shared.work.notify_one();
        let serving = driver.serve(dialled(near));
        let test = async {
            sleep(TIMEOUT * 3 / 4).await;
            let mut next = hand_over(&pipe, b"2");
            pipe.shared.work.notify_one();
            let half = if answers { &b":"[..] } else { b"" };
            far.write_all(half).await.unwrap();
            sleep(TIMEOUT / 2).await;
            assert_eq!(not_sent(&mut late), Some(false), "it has waited too long");
            assert_eq!(not_sent(&mut next), None);
            if answers {
                // The answer to the first comes late and is passed over; the second gets its own.
                far.write_all(b"1\r\n:2\r\n").await.unwrap();
                let reply = (&mut next).await.unwrap().unwrap();
                assert!(matches!(reply, Replies::One(Reply::Integer(2))), "{reply:?}");
            }
        };
        tokio::select! {
            biased;
            ended = serving => {
                assert!(!answers, "it had answered");
                assert_eq!(ended.error.kind(), ErrorKind::Timeout);
            }
            () = test => assert!(answers, "it is kept though it is silent"),
        }
    }
}

#[tokio::test]
async fn a_replica_is_left_when_everything_asked_has_been_answered() {
    let (pipe, mut driver) = driver();
    let (near, mut far) = tokio::io::duplex(1_000);
    let mut answers = [hand_over(&pipe, b"1"), hand_over(&pipe, b"2")];
    pipe.shared.work.notify_one();
    let mut third = None;
    let test = async {
        let mut heard = [0; 2];
        far.read_exact(&mut heard).await.unwrap();
        far.write_all(b"-READONLY You can't write against a read only replica.\r\n").await.unwrap();
        let replies = (&mut answers[0]).await.unwrap().unwrap();
        assert!(matches!(replies, Replies::One(Reply::Error(_))));
        third = Some(hand_over(&pipe, b"3"));
        pipe.shared.work.notify_one();
        while driver_took_nothing(&pipe) {
            yield_now().await;
        }
        far.write_all(b":7\r\n").await.unwrap();
        let replies = (&mut answers[1]).await.unwrap().unwrap();
        assert!(matches!(replies, Replies::One(Reply::Integer(7))));
    };
    let (ended, ()) = tokio::join!(driver.serve(dialled(near)), test);
    assert!(ended.fruitful);
    driver.take_up();
    driver.lose(ended.error);
    assert_eq!(third.as_mut().map(not_sent), Some(None));
    assert_eq!(driver.out, b"3", "it goes to whoever is the primary now");
}

#[tokio::test]
async fn what_a_driver_that_ends_has_not_sent_is_said_to_be_not_sent() {
    let (pipe, mut driver) = driver();
    let mut answers = [hand_over(&pipe, b"1"), hand_over(&pipe, b"2")];
    driver.take_up();
    driver.wrote(1);
    let mut queued = hand_over(&pipe, b"3");
    drop(driver);
    assert_eq!(answers.each_mut().map(not_sent), [Some(false), Some(true)]);
    assert_eq!(not_sent(&mut queued), Some(true));
    assert!(pipe.shared.queue().driven_by.is_none(), "the next caller starts another");
}

#[tokio::test(start_paused = true)]
async fn callers_wait_for_room_and_give_up_without_having_sent() {
    let (pipe, mut driver) = driver();
    let large = vec![b'x'; MOST_UNWRITTEN];
    let _first = hand_over(&pipe, &large);
    let _second = hand_over(&pipe, b"y");
    let error = pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'z')).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.is_not_sent(), "{error}");
    let waiting = pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'z'));
    let writing = async {
        yield_now().await;
        driver.take_up();
        let more = pipe.try_send(Instant::now(), 1, &|out: &mut Vec<u8>| out.push(b'?'));
        assert!(more.unwrap().is_none(), "what was taken up and not written takes room too");
        driver.wrote(MOST_UNWRITTEN);
        yield_now().await;
        driver.take_up();
        driver.wrote(2);
        for number in 0..3 {
            driver.answered(Push::Reply(Reply::Integer(number)));
        }
    };
    let (replies, ()) = tokio::join!(waiting, writing);
    assert!(matches!(replies, Ok(Replies::One(Reply::Integer(2)))), "{replies:?}");
}

/// Accepts one connection after the other and answers its greeting with what is given.
async fn greeter(greeting: &'static [u8]) -> (u16, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, (sender, accepted)) = (listener.local_addr().unwrap().port(), mpsc::channel(1));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1_000]).await.unwrap();
            stream.write_all(greeting).await.unwrap();
            if sender.send(stream).await.is_err() {
                return;
            }
        }
    });
    (port, accepted)
}

/// Answers each byte with a number, but not a question mark.
async fn answer_bytes(mut stream: TcpStream) {
    let mut read = [0; 100];
    while let Ok(count @ 1..) = stream.read(&mut read).await {
        for _ in read[..count].iter().filter(|byte| **byte != b'?') {
            stream.write_all(b":1\r\n").await.unwrap();
        }
    }
}

fn another_runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_driver_whose_runtime_ends_has_a_successor() {
    let (first, second) = (one_thread(), another_runtime());
    let (port, mut accepted) = second.block_on(greeter(b"+OK\r\n"));
    let pipe = Arc::new(pipe(port));
    second.spawn(async move {
        while let Some(stream) = accepted.recv().await {
            tokio::spawn(answer_bytes(stream));
        }
    });
    first.block_on(async {
        pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'1')).await.unwrap();
        // Something stays asked, so that the driver lets others run before it takes the next up.
        let _asked = hand_over(&pipe, b"?");
        while !pipe.shared.queue().requests.is_empty() {
            yield_now().await;
        }
    });
    let waiting = second.spawn({
        let pipe = Arc::clone(&pipe);
        async move { pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'2')).await }
    });
    while pipe.shared.queue().requests.is_empty() {
        std::thread::yield_now();
    }
    // The driver is woken, and its runtime ends before it has taken anything up.
    first.block_on(yield_now());
    drop(first);
    second.block_on(async {
        // Whether it had been taken up is a matter of chance; it is told in any case.
        let _ = waiting.await.unwrap();
        pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'3')).await.unwrap();
    });
}

#[test]
fn a_caller_is_not_held_up_by_the_standstill_of_another_runtime() {
    let (first, second) = (one_thread(), another_runtime());
    let (port, mut accepted) = second.block_on(greeter(b"+OK\r\n"));
    let pipe = pipe(port);
    second.spawn(async move { answer_bytes(accepted.recv().await.unwrap()).await });
    first.block_on(pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'1'))).unwrap();
    // It is still there, but nobody drives it.
    let error = second.block_on(pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'2'))).unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && !error.is_not_sent(), "{error}");
}

#[tokio::test]
async fn answers_that_have_come_count_though_the_connection_is_lost() {
    for end in [&b""[..], b"HTTP/1.1 400\r\n"] {
        let (pipe, mut driver) = driver();
        let (near, mut far) = tokio::io::duplex(4_000);
        let mut answers: Vec<_> = (0..40).map(|_| hand_over(&pipe, b"1")).collect();
        pipe.shared.work.notify_one();
        let redis = async {
            far.read_exact(&mut [0; 40]).await.unwrap();
            far.write_all(&[&b":1\r\n".repeat(40), end].concat()).await.unwrap();
            drop(far);
            // Who is answered first has more to send, and that write fails.
            (&mut answers[0]).await.unwrap().unwrap();
            let _more = hand_over(&pipe, b"2");
            std::future::pending::<()>().await;
        };
        let ended =
            tokio::select! { ended = driver.serve(dialled(near)) => ended, () = redis => unreachable!() };
        driver.lose(ended.error);
        let answered = answers.iter_mut().skip(1).filter_map(|answer| answer.try_recv().unwrap().ok());
        assert_eq!(answered.count(), 39);
    }
}

/// A stream that writes something and then says only that it failed, as TLS may.
struct TornWrites(DuplexStream);

impl AsyncRead for TornWrites {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for TornWrites {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(Pin::new(&mut self.0).poll_write(context, bytes).is_ready());
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for TornWrites {
    fn is_closed(&self) -> bool {
        false
    }

    fn may_fail_after_writing(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn what_tls_may_have_sent_is_not_sent_again() {
    let (pipe, mut driver) = driver();
    let (near, mut far) = tokio::io::duplex(4_000);
    let mut answer = hand_over(&pipe, b"12345");
    pipe.shared.work.notify_one();
    let ended =
        driver.serve(Dialled { stream: Box::new(TornWrites(near)), ..dialled(tokio::io::duplex(1).0) }).await;
    driver.lose(ended.error);
    let mut arrived = [0; 5];
    far.read_exact(&mut arrived).await.unwrap();
    assert_eq!(&arrived, b"12345");
    assert_eq!(driver.out, b"");
    assert_eq!(not_sent(&mut answer), Some(false));
}

#[tokio::test]
async fn a_connection_that_is_refused_at_the_door_is_a_refusal() {
    for credentials in ["", ":secret@"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pipe = pipe_at(&format!("{credentials}127.0.0.1:{}", listener.local_addr().unwrap().port()));
        let door = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1_000]).await.unwrap();
            stream.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
        };
        let (error, ()) = tokio::join!(pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'1')), door);
        let error = error.unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.is_not_sent(), "{error}");
        assert!(error.to_string().contains("max number of clients"), "{error}");
    }
}

#[tokio::test]
async fn what_was_handed_over_is_sent_though_caller_and_pipe_are_gone() {
    let (port, mut accepted) = greeter(b"+OK\r\n").await;
    let before = Handle::current().metrics().num_alive_tasks();
    let pipe = pipe(port);
    assert!(
        Box::pin(pipe.send(deadline(TIMEOUT), 2, |out| out.extend_from_slice(b"12")))
            .now_or_never()
            .is_none()
    );
    drop(pipe);
    let mut stream = accepted.recv().await.unwrap();
    let mut arrived = [0; 2];
    stream.read_exact(&mut arrived).await.unwrap();
    assert_eq!(&arrived, b"12");
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before + 1, "it waits for the answer");
    stream.write_all(b":1\r\n-ERR no\r\n").await.unwrap();
    while Handle::current().metrics().num_alive_tasks() > before {
        yield_now().await;
    }
}

#[tokio::test]
async fn several_commands_have_several_answers() {
    let (port, mut accepted) = greeter(b"+OK\r\n").await;
    let pipe = pipe(port);
    let redis = async {
        let mut stream = accepted.recv().await.unwrap();
        stream.read_exact(&mut [0; 2]).await.unwrap();
        stream.write_all(b":1\r\n-ERR no\r\n").await.unwrap();
        stream
    };
    let (replies, _stream) =
        tokio::join!(pipe.send(deadline(TIMEOUT), 2, |out| out.extend_from_slice(b"12")), redis);
    let Ok(Replies::Several(replies)) = replies else { panic!("{replies:?}") };
    assert_eq!(replies, [Reply::Integer(1), Reply::Error("ERR no".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_at_once_is_not_asked_in_a_tight_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pipe = pipe(listener.local_addr().unwrap().port());
    let doors = async {
        let mut connections = 0;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1_000]).await.unwrap();
            stream.write_all(b"+OK\r\n").await.unwrap();
            connections += 1;
            if connections == 20 {
                return;
            }
        }
    };
    let begun = Instant::now();
    let publishing = async {
        loop {
            let _ = pipe.send(deadline(TIMEOUT), 1, |out| out.push(b'1')).await;
        }
    };
    tokio::select! {
        () = doors => {}
        () = publishing => {}
    }
    // A tenth of the bound of each delay at least: 50 ms, doubled up to 2 s.
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}
