//! The examples do what they show: as programs, in memory and on a Redis, with somebody else listening.

mod auditlog;
mod cameras;
mod config_monitor;
mod deployment;
mod live;
mod notifications;
mod task_updates;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::LazyLock;

use messaging_tests::{RedisServer, free_port};

use crate::place::PATIENCE;
use crate::programs::{Ended, Program, Programs, repository, target};

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    Programs::build(repository(), target(), &["--package", "examples", "--all-features", "--bins"])
});

/// A program of the examples, on this Redis.
fn example(name: &str, arguments: &[&str], url: Option<&str>) -> Command {
    let mut command = PROGRAMS.command(name);
    command.args(arguments).envs(url.map(|url| ("REDIS_URL", url)));
    command
}

fn run(name: &str, arguments: &[&str], url: Option<&str>) -> Ended {
    Program::start(example(name, arguments, url)).end()
}

/// What one of those has told whose lines begin with a time and a name.
fn told(lines: &[String], who: &str) -> Vec<String> {
    let lines = lines.iter().filter_map(|line| line.split_once(" ms  "));
    let lines = lines.filter_map(|(_, told)| told.strip_prefix(who)?.strip_prefix(' ').map(str::trim));
    lines.map(|told| told.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Checks what the demo tells: when the slow source was asked, and who was called with what.
#[track_caller]
fn check_demo(lines: &[String]) {
    let told = |who: &str| told(lines, who);
    let cache = told("cache");
    let results: Vec<_> = cache.iter().filter_map(|told| told.split(' ').next()).collect();
    assert_eq!(results, ["miss", "hit", "hit", "invalidated", "miss", "hit", "miss"], "{lines:#?}");
    let found = |number: usize, what: &str| cache[number].contains(what);
    assert!((0..3).all(|number| found(number, "1080p")), "{cache:?}");
    assert!(found(3, "camera:mac:AA:BB:CC:DD:EE:FF"), "{cache:?}");
    assert!(found(4, "4K") && found(5, "4K") && found(6, "no such camera"), "{cache:?}");
    let handlers = [
        "welcome AA:BB:CC:DD:EE:FF is new, a Hikvision DS-2CD",
        "notify_admins settings of AA:BB:CC:DD:EE:FF changed",
        "on_complex_event complex_id = 12: motion_detected",
        "goodbye AA:BB:CC:DD:EE:FF is gone",
    ];
    assert_eq!(told("handler"), handlers);
    assert_eq!(told("started").len(), 4);
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_demo_runs_in_memory() {
    check_demo(&run("demo", &[], None).succeeded());
}

/// What the billing of the durable orders tells, attempts included, and how it ends.
#[track_caller]
fn check_durable_orders(lines: &[String]) {
    let mut billed: Vec<_> = lines.iter().filter(|line| line.starts_with("bill")).cloned().collect();
    billed.sort();
    let expected = [
        "bill      order 1: Ada pays 120 euros",
        "bill      order 2: Grace pays 5000 euros",
        "bill      order 2: attempt 1, the bank does not answer",
        "bill      order 2: attempt 2, the bank does not answer",
        "bill      order 2: attempt 3, the bank does not answer",
        "bill      order 3: nothing to pay",
    ];
    assert_eq!(billed, expected, "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("ship")).count(), 3, "{lines:#?}");
    let alarm = r#"alarm     "billing" gave up after 3 attempts: "the bank does not answer""#;
    assert!(lines.iter().any(|line| line == alarm), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("shut down: everything was finished"));
}

#[test]
fn durable_orders_are_billed_in_memory() {
    check_durable_orders(&run("durable_orders", &[], None).succeeded());
}

#[test]
fn durable_orders_are_billed_on_redis() {
    let redis = RedisServer::start();
    check_durable_orders(&run("durable_orders", &[], Some(&redis.url())).succeeded());
}

/// Somebody who knows nothing of us: RESP by hand.
struct Listener(BufReader<TcpStream>);

impl Listener {
    fn psubscribe(redis: &RedisServer, pattern: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        let request = format!("*2\r\n$10\r\nPSUBSCRIBE\r\n${}\r\n{pattern}\r\n", pattern.len());
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut listener = Self(BufReader::new(stream));
        assert_eq!(listener.read(), ["psubscribe", pattern, "1"]);
        listener
    }

    /// The next message: its channel and its payload.
    fn hear(&mut self) -> (String, String) {
        let [_, _, channel, payload] =
            <[String; 4]>::try_from(self.read()).expect("a pmessage has four parts");
        (channel, payload)
    }

    /// One array of bulk strings and integers.
    fn read(&mut self) -> Vec<String> {
        let parts: usize = self.line('*').parse().expect("a length");
        (0..parts)
            .map(|_| {
                let start = self.0.fill_buf().expect("the server writes")[0];
                if start == b':' {
                    return self.line(':');
                }
                let length: usize = self.line('$').parse().expect("a length");
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).expect("the server writes");
                String::from_utf8(bytes[..length].to_vec()).expect("it is text")
            })
            .collect()
    }

    fn line(&mut self, start: char) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server writes");
        line.trim_end().strip_prefix(start).unwrap_or_else(|| panic!("{start} before {line:?}")).to_owned()
    }
}

#[test]
fn the_demo_runs_on_redis_where_anybody_can_hear_it() {
    let redis = RedisServer::start();
    let mut listener = Listener::psubscribe(&redis, "camera.*");
    // What the first run leaves behind does not disturb the second one.
    for _ in 0..2 {
        check_demo(&run("demo", &[], Some(&redis.url())).succeeded());
        let camera = |resolution| {
            format!(
                r#"{{"id":7,"mac_address":"AA:BB:CC:DD:EE:FF","model":"Hikvision DS-2CD","settings":{{"resolution":"{resolution}"}}}}"#
            )
        };
        let expected = [
            ("camera.created", camera("1080p")),
            ("camera.updated", camera("4K")),
            ("camera.events.complex:12", r#"{"event_type":"motion_detected","camera_id":7}"#.to_owned()),
            ("camera.deleted", camera("4K")),
        ];
        for (channel, payload) in expected {
            assert_eq!(listener.hear(), (channel.to_owned(), payload));
        }
    }
}

#[test]
fn a_redis_that_cannot_be_used_is_named_in_one_line_and_no_password_is_told() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let locked = RedisServer::builder().password("another").start();
    let address = format!("127.0.0.1:{}", locked.port());
    let programs: [(&str, &[&str]); 13] = [
        ("demo", &[]),
        ("auditlog", &[]),
        ("cameras", &[]),
        ("config_monitor", &[]),
        ("config_monitor", &["--role", "monitor"]),
        ("live", &["--port", "0"]),
        ("notifications", &[]),
        ("notifications", &["--role", "subscriber"]),
        ("notifications", &["--role", "publisher"]),
        ("task_updates", &["--role", "all", "--listen", "127.0.0.1:0"]),
        ("task_updates", &["--role", "task-manager"]),
        ("multi_process", &["--role", "publisher"]),
        ("multi_process", &["--role", "subscriber"]),
    ];
    // Each waits five seconds for Redis to come; they wait together.
    let runs: Vec<_> = programs
        .into_iter()
        .flat_map(|(name, arguments)| {
            [(&nobody, "refused"), (&address, "password")].map(|(address, reason)| {
                let url = format!("redis://user:s3cr3t@{address}/3");
                (Program::start(example(name, arguments, Some(&url))), name, address, reason)
            })
        })
        .collect();
    for (program, name, address, reason) in runs {
        let ended = program.end();
        assert!(!ended.lines.join("\n").contains("s3cr3t"), "{:?}", ended.lines);
        let complaint = ended.failed(1);
        assert!(complaint.starts_with(&format!("{name}: ")), "{complaint}");
        assert!(
            complaint.contains(address) && complaint.contains(reason),
            "{address}, {reason}: {complaint}"
        );
        assert!(!complaint.contains("s3cr3t"), "{complaint}");
    }
    // Neither does a URL that is none get repeated.
    let complaint = run("demo", &[], Some("redis://user:s3cr3t@127.0.0.1:port")).failed(1);
    assert!(complaint.contains("REDIS_URL") && !complaint.contains("s3cr3t"), "{complaint}");
}

#[test]
fn multi_process_says_how_it_is_used() {
    for arguments in [&[][..], &["--role"], &["--role", "bystander"], &["publisher"]] {
        let Ended { status, lines, complaints } = run("multi_process", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("usage: multi_process --role publisher|subscriber\n"), "{complaints}");
    }
    for role in ["publisher", "subscriber"] {
        for url in ["memory://", "memory://shared"] {
            let complaint = run("multi_process", &["--role", role], Some(url)).failed(1);
            assert!(complaint.contains("two processes cannot share memory"), "{complaint}");
        }
    }
}

#[cfg(unix)]
#[test]
fn two_processes_exchange_events_and_end_when_told() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut subscriber = Program::start(example("multi_process", &["--role", "subscriber"], Some(&url)));
    for handler in ["cook", "print_receipt"] {
        subscriber.wait_for_line(|line| line.contains(&format!("{handler} hears of every order")));
    }
    let published = run("multi_process", &["--role", "publisher"], Some(&url)).succeeded();
    let heard = published.iter().filter(|line| line.contains("  publish ") && line.ends_with("heard"));
    assert_eq!(heard.count(), 12, "{published:#?}");
    assert!(
        published.last().is_some_and(|line| line.ends_with("12 of 12 orders were heard")),
        "{published:#?}"
    );

    subscriber.wait_for_line(|line| line.contains("shop 2, order 12: noodles"));
    // The last receipt waits for its second attempt: it is not forgotten.
    subscriber.wait_for_line(|line| line.contains("order 12: paper jam"));
    subscriber.terminate();
    let lines = subscriber.end().succeeded();
    let of = |who: &str| -> Vec<_> {
        let lines = lines.iter().filter_map(|line| line.split_once(" ms  "));
        lines.filter_map(|(_, told)| told.strip_prefix(who).map(str::trim)).collect()
    };
    let dishes = ["dumplings", "soup", "noodles"];
    let expected: Vec<_> = (1..=12)
        .map(|number| format!("shop {}, order {number:>2}: {}", 2 - number % 2, dishes[(number - 1) % 3]))
        .collect();
    assert_eq!(of("cook"), expected);
    let mut expected = Vec::new();
    for number in 1..=12 {
        let order = format!("shop {}, order {number:>2}", 2 - number % 2);
        let attempt = if number % 4 == 0 { 2 } else { 1 };
        expected.extend((attempt == 2).then(|| format!("{order}: paper jam, trying again")));
        expected.push(format!("{order}: printed at attempt {attempt}"));
    }
    assert_eq!(of("print_receipt"), expected);
    assert!(lines.last().is_some_and(|line| line.contains("shut down")), "{lines:#?}");
}
