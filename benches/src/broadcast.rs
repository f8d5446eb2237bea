//! What is measured of a gateway: one channel, many clients, and what is published to all of them through Redis. The clients
//! and the publisher are this process; the server is another one, which is looked at from outside.

use std::io::{BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::job::{CHANNEL, Failure, Gateway, Report, Server};
use crate::order::{self, Order};
use crate::publisher::receivers;
use crate::wire::array;
use crate::{emitter, usage};

/// How long the server has nothing to do before its memory is looked at.
const IDLE: Duration = Duration::from_secs(3);
/// How long is looked for what should not come.
const AFTERMATH: Duration = Duration::from_millis(100);
/// How many messages are published at once before memory is looked at again.
const BACKLOG: u64 = 20;

/// Publishes `together` messages at once and waits until each client has them, again and again for a time; before that, for
/// a quarter of it, without measuring.
pub(crate) fn deliver(
    gateway: &Gateway,
    clients: u64,
    together: u64,
    time: Duration,
) -> Result<Report, Failure> {
    let mut crowd = Crowd::gather(gateway.server, gateway.port, clients)?;
    let mut publisher = Publisher::connect(gateway)?;
    let cpu = || usage::cpu_seconds_of(gateway.process);
    let mut all_came = publisher.rounds(&mut crowd, clients, together, time / 4)?;
    let (start, cpu_before, before) = (Instant::now(), cpu(), crowd.events());
    all_came = all_came && publisher.rounds(&mut crowd, clients, together, time)?;
    let (elapsed, cpu_after) = (start.elapsed(), cpu());
    let count = crowd.events() - before;
    if all_came {
        crowd.stay(AFTERMATH)?;
    }
    Ok(Report {
        count,
        seconds: elapsed.as_secs_f64(),
        cpu_seconds: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
        lost: crowd.lost(publisher.published)?,
        ..Report::default()
    })
}

/// What each connection adds to the memory of the server: of clients that are subscribed and have not been sent anything; and
/// when they have.
pub(crate) fn idle(gateway: &Gateway, clients: u64) -> Result<Report, Failure> {
    let untold = "the system does not tell the memory of a process";
    let resident = || usage::resident_kib_of(gateway.process).ok_or(untold);
    let before = resident()?;
    let mut crowd = Crowd::gather(gateway.server, gateway.port, clients)?;
    crowd.stay(IDLE)?;
    let idle = resident()?;
    let mut publisher = Publisher::connect(gateway)?;
    for together in [1, BACKLOG] {
        publisher.round(&mut crowd, clients, together)?;
    }
    crowd.stay(IDLE)?;
    let used = resident()?;
    let each = |resident: f64| (resident - before) / clients as f64;
    Ok(Report {
        count: clients,
        kib_idle: each(idle),
        kib_used: each(used),
        lost: crowd.lost(publisher.published)?,
        ..Report::default()
    })
}

/// Publishes over a plain socket.
struct Publisher {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    command: Vec<u8>,
    published: u64,
}

impl Publisher {
    fn connect(gateway: &Gateway) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.redis))?;
        stream.set_nodelay(true)?;
        let order = Order::encoded(order::FIRST);
        let command = match gateway.server {
            Server::Ours | Server::Naive => array(&[b"PUBLISH", CHANNEL.as_bytes(), &order]),
            Server::SocketIo => {
                let channel = emitter::channel(CHANNEL);
                array(&[b"PUBLISH", channel.as_bytes(), &emitter::message(CHANNEL, &order)?])
            }
        };
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream, command, published: 0 })
    }

    /// Rounds until the time is over; `false` if something did not come.
    fn rounds(
        &mut self,
        crowd: &mut Crowd,
        clients: u64,
        together: u64,
        time: Duration,
    ) -> Result<bool, Failure> {
        let start = Instant::now();
        while start.elapsed() < time {
            if !self.round(crowd, clients, together)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Publishes so many messages at once and waits until all clients have all of them; `false` if they do not come.
    fn round(&mut self, crowd: &mut Crowd, clients: u64, together: u64) -> Result<bool, Failure> {
        self.stream.write_all(&self.command.repeat(usize::try_from(together)?))?;
        self.published += together;
        let all_came = crowd.listen_for(self.published * clients)?;
        for _ in 0..together {
            if receivers(&mut self.answers)? == 0 {
                return Err("the server is not subscribed at Redis".into());
            }
        }
        Ok(all_came)
    }
}
