//! A TCP proxy between a client and a server that breaks what flows through it: connections are cut, refused, held up in
//! one direction or both, delayed, throttled. It understands nothing of what it forwards.

use crate::ports::free_port;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// What is read at once.
const CHUNK: usize = 16 << 10;
/// How many chunks wait in the proxy before it stops reading: what is held up looks to the sender like a full network.
const CHUNKS: usize = 16;

/// A proxy in front of one server on the loopback interface. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    status: watch::Receiver<Status>,
    listener: JoinHandle<()>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both ways.
    Both,
}

impl Direction {
    fn opposite(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
            Self::Both => Self::Both,
        }
    }
}

/// What is done to connections, which are numbered from 1.
#[derive(Clone, Debug, Default)]
struct Network {
    refuses: bool,
    /// Connections up to this number are closed.
    cut: usize,
    /// Connections up to these numbers are held up.
    held_to_server: usize,
    held_to_client: usize,
    delay: Duration,
    bytes_per_second: Option<NonZeroUsize>,
    /// What is done to single connections besides.
    alone: BTreeMap<usize, Alone>,
}

/// What is done to one connection and no other.
#[derive(Clone, Copy, Debug, Default)]
struct Alone {
    cut: bool,
    held_to_server: bool,
    held_to_client: bool,
}

#[derive(Clone, Debug, Default)]
struct Status {
    listens: bool,
    accepted: usize,
    open: BTreeSet<usize>,
}

impl Network {
    fn holds(&self, number: usize, direction: Direction) -> bool {
        let alone = self.alone.get(&number).copied().unwrap_or_default();
        let to_server = number <= self.held_to_server || alone.held_to_server;
        let to_client = number <= self.held_to_client || alone.held_to_client;
        match direction {
            Direction::ToServer => to_server,
            Direction::ToClient => to_client,
            Direction::Both => to_server && to_client,
        }
    }

    fn cuts(&self, number: usize) -> bool {
        number <= self.cut || self.alone.get(&number).is_some_and(|alone| alone.cut)
    }

    fn hold(&mut self, up_to: usize, direction: Direction) {
        if direction != Direction::ToClient {
            self.held_to_server = up_to;
        }
        if direction != Direction::ToServer {
            self.held_to_client = up_to;
        }
    }
}

impl Proxy {
    /// A proxy in front of the server on this port; it listens when this returns.
    ///
    /// # Panics
    ///
    /// If no port can be listened on.
    pub async fn before(server: u16) -> Self {
        let port = free_port();
        let (network, status) = (watch::Sender::default(), watch::Sender::default());
        let (watched, told) = (network.subscribe(), status.subscribe());
        let proxy = Self {
            port,
            network,
            status: told,
            listener: tokio::spawn(listen(port, server, watched, status)),
        };
        proxy.until(|status| status.listens).await;
        proxy
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections that there are; new ones are not affected.
    pub fn cut(&self) {
        let accepted = self.accepted();
        self.network.send_modify(|network| network.cut = accepted);
    }

    /// Closes one of the [`connections`](Self::connections).
    pub fn cut_one(&self, number: usize) {
        self.network.send_modify(|network| network.alone.entry(number).or_default().cut = true);
    }

    /// [`strand`](Self::strand) for one of the [`connections`](Self::connections).
    pub fn strand_one(&self, number: usize, direction: Direction) {
        self.network.send_modify(|network| {
            let alone = network.alone.entry(number).or_default();
            alone.held_to_server |= direction != Direction::ToClient;
            alone.held_to_client |= direction != Direction::ToServer;
        });
    }

    /// Refuses new connections, as if nobody listened; those that there are go on.
    pub async fn refuse(&self) {
        self.network.send_modify(|network| network.refuses = true);
        self.until(|status| !status.listens).await;
    }

    /// Lets nothing through in this direction, on the connections that there are and on new ones. All of them stay open,
    /// and what has been sent arrives after [`heal`](Self::heal), as with a network that is interrupted for a while.
    pub fn hold(&self, direction: Direction) {
        self.network.send_modify(|network| network.hold(usize::MAX, direction));
    }

    /// Lets everything through again in this direction; what is done to the other stays.
    pub fn release(&self, direction: Direction) {
        self.network.send_modify(|network| network.hold(0, direction));
    }

    /// [`hold`](Self::hold) for the connections that there are by now only: they are half-open, and new ones are not affected.
    pub fn strand(&self, direction: Direction) {
        let accepted = self.accepted();
        self.network.send_modify(|network| network.hold(accepted, direction));
    }

    /// Everything takes so much longer each way.
    pub fn delay(&self, delay: Duration) {
        self.network.send_modify(|network| network.delay = delay);
    }

    /// Each connection carries no more than so many bytes per second each way.
    pub fn throttle(&self, bytes_per_second: NonZeroUsize) {
        self.network.send_modify(|network| network.bytes_per_second = Some(bytes_per_second));
    }

    /// A sound network again: accepts, and holds up, delays and throttles nothing.
    pub async fn heal(&self) {
        self.network.send_modify(|network| {
            let cut = network.alone.iter().filter(|(_, alone)| alone.cut);
            let alone = cut.map(|(number, _)| (*number, Alone { cut: true, ..Alone::default() })).collect();
            *network = Network { cut: network.cut, alone, ..Network::default() };
        });
        self.until(|status| status.listens).await;
    }

    /// How many connections have been accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.status.borrow().accepted
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.status.borrow().open.len()
    }

    /// Those that are open, by their numbers: the first one that was accepted is 1.
    #[must_use]
    pub fn connections(&self) -> Vec<usize> {
        self.status.borrow().open.iter().copied().collect()
    }

    async fn until(&self, condition: impl Fn(&Status) -> bool) {
        let mut status = self.status.clone();
        status.wait_for(condition).await.expect("the listener lives as long as the proxy");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(
    port: u16,
    server: u16,
    mut network: watch::Receiver<Network>,
    status: watch::Sender<Status>,
) {
    let mut connections = JoinSet::new();
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on port {port}: {error}"));
        status.send_modify(|status| status.listens = true);
        loop {
            let client = tokio::select! {
                accepted = listener.accept() => accepted.expect("a listening socket accepts").0,
                refuses = network.wait_for(|network| network.refuses) => {
                    drop(refuses);
                    break;
                }
                Some(_) = connections.join_next() => continue,
            };
            let mut number = 0;
            status.send_modify(|status| {
                status.accepted += 1;
                number = status.accepted;
                status.open.insert(number);
            });
            let open = Open { number, status: status.clone() };
            connections.spawn(serve(number, client, server, network.clone(), open));
        }
        drop(listener);
        status.send_modify(|status| status.listens = false);
        if network.wait_for(|network| !network.refuses).await.is_err() {
            return;
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open {
    number: usize,
    status: watch::Sender<Status>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.status.send_modify(|status| _ = status.open.remove(&self.number));
    }
}

async fn serve(
    number: usize,
    client: TcpStream,
    server: u16,
    network: watch::Receiver<Network>,
    _open: Open,
) {
    let mut cut = network.clone();
    let connection = async {
        // A server that cannot be reached does not see the attempt.
        let mut reachable = network.clone();
        reachable.wait_for(|network| !network.holds(number, Direction::ToServer)).await.ok()?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.ok()?;
        client.set_nodelay(true).ok()?;
        server.set_nodelay(true).ok()?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let pipe = |direction| Pipe { number, direction, network: network.clone() };
        let to_server = pipe(Direction::ToServer).carry(from_client, to_server);
        let to_client = pipe(Direction::ToClient).carry(from_server, to_client);
        tokio::try_join!(to_server, to_client).ok()
    };
    tokio::select! {
        _ = connection => {}
        _ = cut.wait_for(|network| network.cuts(number)) => {}
    }
}

/// One direction of one connection.
struct Pipe {
    number: usize,
    direction: Direction,
    network: watch::Receiver<Network>,
}

impl Pipe {
    /// Carries bytes, and then the end, until one side fails; the other side hears of that only when it can.
    async fn carry(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let carried = tokio::try_join!(self.read(&mut from, sender), self.write(&mut to, receiver));
        if carried.is_err() {
            self.passes(self.direction.opposite()).await;
        }
        carried.map(drop)
    }

    async fn read(
        &self,
        from: &mut OwnedReadHalf,
        transit: mpsc::Sender<(Instant, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        loop {
            let read = from.read(&mut chunk).await?;
            let due = Instant::now() + self.network.borrow().delay;
            if read == 0 || transit.send((due, chunk[..read].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        to: &mut OwnedWriteHalf,
        mut transit: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) -> io::Result<()> {
        while let Some((due, chunk)) = transit.recv().await {
            sleep_until(due).await;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                self.passes(self.direction).await;
                let speed = self.network.borrow().bytes_per_second.map(NonZeroUsize::get);
                let size = speed.map_or(rest.len(), |speed| (speed / 50).clamp(1, rest.len()));
                to.write_all(&rest[..size]).await?;
                rest = &rest[size..];
                if let Some(speed) = speed {
                    sleep(Duration::from_secs(1).mul_f64(size as f64 / speed as f64)).await;
                }
            }
        }
        self.passes(self.direction).await;
        to.shutdown().await
    }

    /// Waits until nothing holds this connection up in this direction.
    async fn passes(&self, direction: Direction) {
        let mut network = self.network.clone();
        // When the proxy is gone, so is this task.
        let _ = network.wait_for(|network| !network.holds(self.number, direction)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waiting::eventually;

    /// A server that sends back what it receives, and counts who is connected.
    struct Echo {
        port: u16,
        connected: watch::Receiver<usize>,
    }

    impl Echo {
        async fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (count, connected) = watch::channel(0);
            tokio::spawn(async move {
                loop {
                    let mut stream = listener.accept().await.unwrap().0;
                    count.send_modify(|count| *count += 1);
                    let count = count.clone();
                    tokio::spawn(async move {
                        let (mut from, mut to) = stream.split();
                        let _ = tokio::io::copy(&mut from, &mut to).await;
                        count.send_modify(|count| *count -= 1);
                    });
                }
            });
            Self { port, connected }
        }
    }

    struct Client(TcpStream);

    impl Client {
        async fn to(proxy: &Proxy) -> Self {
            Self(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap())
        }

        async fn send(&mut self, text: &str) {
            self.0.write_all(text.as_bytes()).await.unwrap();
        }

        async fn hears(&mut self, text: &str) {
            let mut answer = vec![0; text.len()];
            self.0.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, text.as_bytes());
        }

        /// Whether nothing arrives for a while: long for bytes on the loopback interface, and a slow machine can only make
        /// this miss what it looks for.
        async fn hears_nothing(&mut self) -> bool {
            tokio::time::timeout(Duration::from_millis(50), self.0.read_u8()).await.is_err()
        }

        async fn is_closed(&mut self) -> bool {
            !matches!(self.0.read(&mut [0]).await, Ok(1..))
        }
    }

    #[tokio::test]
    async fn what_is_sent_arrives_and_so_does_the_end() {
        let server = Echo::start().await;
        let proxy = Proxy::before(server.port).await;
        let mut client = Client::to(&proxy).await;
        let long = "abc".repeat(CHUNK);
        let (mut from, mut to) = client.0.split();
        let mut answer = vec![0; long.len()];
        let (sent, heard) = tokio::join!(to.write_all(long.as_bytes()), from.read_exact(&mut answer));
        assert!(sent.is_ok() && heard.is_ok() && answer == long.as_bytes());
        client.0.shutdown().await.unwrap();
        assert!(client.is_closed().await, "the server has closed it too");
        eventually("it is gone", async || proxy.open() == 0 && *server.connected.borrow() == 0).await;
        assert_eq!(proxy.accepted(), 1);
    }

    #[tokio::test]
    async fn a_cut_closes_what_there_is_on_both_sides_and_nothing_else() {
        let server = Echo::start().await;
        let proxy = Proxy::before(server.port).await;
        let (mut one, mut two) = (Client::to(&proxy).await, Client::to(&proxy).await);
        one.send("1").await;
        one.hears("1").await;
        eventually("both are there", async || proxy.open() == 2).await;
        proxy.cut();
        assert!(one.is_closed().await && two.is_closed().await);
        eventually("the server has lost them", async || *server.connected.borrow() == 0).await;
        let mut three = Client::to(&proxy).await;
        three.send("3").await;
        three.hears("3").await;
        assert_eq!((proxy.accepted(), proxy.open()), (3, 1));
    }

    #[tokio::test]
    async fn one_connection_is_cut_or_held_up_and_the_others_go_on() {
        let server = Echo::start().await;
        let proxy = Proxy::before(server.port).await;
        let mut clients = Vec::new();
        for number in 1..=3 {
            clients.push(Client::to(&proxy).await);
            eventually("it is accepted", async || proxy.connections().len() == number).await;
        }
        let [one, two, three] = &mut clients[..] else { panic!("there are three") };
        proxy.cut_one(1);
        proxy.strand_one(2, Direction::ToClient);
        assert!(one.is_closed().await);
        two.send("2").await;
        three.send("3").await;
        three.hears("3").await;
        assert!(two.hears_nothing().await);
        proxy.heal().await;
        two.hears("2").await;
        assert_eq!(proxy.connections(), [2, 3]);
    }

    #[tokio::test]
    async fn what_is_refused_is_refused_and_the_others_go_on() {
        let server = Echo::start().await;
        let proxy = Proxy::before(server.port).await;
        let mut client = Client::to(&proxy).await;
        client.send("1").await;
        client.hears("1").await;
        proxy.refuse().await;
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        client.send("2").await;
        client.hears("2").await;
        proxy.heal().await;
        Client::to(&proxy).await;
    }

    #[tokio::test]
    async fn what_is_held_up_arrives_later() {
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            let server = Echo::start().await;
            let proxy = Proxy::before(server.port).await;
            let mut client = Client::to(&proxy).await;
            client.send("1").await;
            client.hears("1").await;
            proxy.hold(direction);
            client.send("2").await;
            let mut other = Client::to(&proxy).await;
            other.send("3").await;
            assert!(client.hears_nothing().await && other.hears_nothing().await, "{direction:?}");
            proxy.release(direction);
            client.hears("2").await;
            other.hears("3").await;
        }
    }

    #[tokio::test]
    async fn stranded_connections_do_not_hear_of_the_end_and_new_ones_work() {
        for direction in [Direction::ToServer, Direction::Both] {
            let server = Echo::start().await;
            let proxy = Proxy::before(server.port).await;
            let mut client = Client::to(&proxy).await;
            client.send("1").await;
            client.hears("1").await;
            proxy.strand(direction);
            drop(client);
            let mut other = Client::to(&proxy).await;
            other.send("2").await;
            other.hears("2").await;
            assert_eq!((proxy.open(), *server.connected.borrow()), (2, 2), "{direction:?}");
            proxy.heal().await;
            eventually("the server hears of it", async || *server.connected.borrow() == 1).await;
        }
    }

    #[tokio::test]
    async fn delays_and_throttles_take_their_time_and_lose_nothing() {
        let server = Echo::start().await;
        let proxy = Proxy::before(server.port).await;
        let mut client = Client::to(&proxy).await;
        proxy.delay(Duration::from_millis(20));
        let begun = Instant::now();
        client.send("1").await;
        client.hears("1").await;
        assert!(begun.elapsed() >= Duration::from_millis(40));
        proxy.heal().await;
        proxy.throttle(NonZeroUsize::new(20_000).unwrap());
        let begun = Instant::now();
        let long = "x".repeat(2_000);
        client.send(&long).await;
        client.hears(&long).await;
        assert!(begun.elapsed() >= Duration::from_millis(70));
    }
}
