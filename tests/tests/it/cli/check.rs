//! `check`: what is well, what is not, and what to try.

use std::io::{BufReader, Write as _};
use std::net::TcpListener;

use messaging_tests::RedisServer;
use serde_json::{Value, json};

use super::{Came, Cli, messaging, run, with_dead_letters};

fn check(url: &str, arguments: &[&str]) -> Came {
    let mut command = messaging();
    command.arg("check").args(arguments).env("REDIS_URL", url);
    run(command, None)
}

/// What was found about something, as `state: text`, with the advice behind it.
fn findings(report: &Value, what: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["what"] == what);
    let text = |finding: &Value| {
        let advice =
            finding["advice"].as_array().unwrap().iter().map(|line| format!(" → {}", line.as_str().unwrap()));
        let (state, text) = (finding["state"].as_str().unwrap(), finding["text"].as_str().unwrap());
        format!("{state}: {text}{}", advice.collect::<String>())
    };
    findings.map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_server_is_said_to_be_one_and_nothing_stays_behind() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").start();
    let came = check(&redis.url(), &[]).with(0);
    for part in [
        "ok  settings    redis://127.0.0.1:",
        "(REDIS_URL), namespace \"msg\"\n",
        "ok  connection  redis answers\n",
        "ok  disk        append-only file",
        "ok  rights      the user default may do everything that is needed\n",
        "ok  message     published and heard on messaging.check.",
        "ok  durable     published, kept, and handled by a queue in ",
        "ok  cache       written, read, loaded and invalidated in ",
        "\nall is well\n",
    ] {
        assert!(came.out.contains(part), "{part:?} is not in:\n{}", came.out);
    }
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "{}", redis.cli(&["KEYS", "*"]));
    let came = check(&redis.url(), &["--read-only"]).with(0);
    assert!(came.out.contains(" -  trips       nothing was published or written"), "{}", came.out);
}

#[test]
fn the_rights_that_are_lacking_are_named_with_the_line_that_gives_them() {
    let redis = RedisServer::builder()
        .acl("user small on >secret ~msg:* resetchannels &orders.* +@all -xadd -xgroup|create")
        .acl("user none on >secret ~* &* -@all")
        .start();
    let report = check(&redis.url_for("small", "secret"), &["--json"]).with(1).json();
    let rights = findings(&report, "rights").join("\n");
    let version = redis.version();
    for part in [
        "bad: publishing: a part of it is refused to the user small → allow it: ACL SETUSER small &messaging.check.* ~messaging.check:*",
        "bad: subscribing: a part of it is refused to the user small",
        "doubtful: durable channels: a part of it is refused to the user small → allow it: ACL SETUSER small +xadd",
        "doubtful: caching: a part of it is refused to the user small → allow it: ACL SETUSER small &msg:cache:* ~messaging.check:*",
        "doubtful: presence: a part of it is refused to the user small → allow it: ACL SETUSER small &msg:presence:*",
        "+xadd +xgroup|create ~messaging.check:*",
    ] {
        // Before 7.0 subcommands were not told apart in the same way.
        assert!(rights.contains(part) || version < (7, 0), "{part:?} is not in:\n{rights}");
    }
    assert!(!report.to_string().contains("secret"), "{report}");
    let message = findings(&report, "message").join("\n");
    assert!(
        message.starts_with("bad: cannot subscribe") && message.contains("allow what `rights` says"),
        "{message}"
    );

    // With what is allowed, what is advised makes all well.
    let line = rights.rsplit("ACL SETUSER small ").next().unwrap().to_owned();
    let rules: Vec<&str> = line.split(' ').collect();
    redis.cli(&[&["ACL", "SETUSER", "small"][..], &rules].concat());
    let came = check(&redis.url_for("small", "secret"), &[]).with(0);
    assert!(came.out.contains("the user small may do everything"), "{}", came.out);

    let report = check(&redis.url_for("none", "secret"), &["--json"]).with(1).json();
    assert_eq!(findings(&report, "connection"), ["good: redis answers"]);
    assert!(findings(&report, "server")[0].contains("ACL SETUSER none +info"), "{report}");
    assert!(findings(&report, "rights")[0].contains("ACL SETUSER none +multi"), "{report}");
}

#[test]
fn rights_are_looked_at_for_the_channel_and_the_keys_that_are_named() {
    let redis = RedisServer::builder()
        .acl("user narrow on >secret ~msg:* ~camera:* resetchannels &orders.* &msg:* +@all")
        .start();
    let report = check(
        &redis.url_for("narrow", "secret"),
        &["-c", "orders.created", "--keys", "camera:mac:*", "--read-only", "--json"],
    );
    assert_eq!(
        findings(&report.with(0).json(), "rights"),
        ["good: the user narrow may do everything that is needed"]
    );
    let report = check(
        &redis.url_for("narrow", "secret"),
        &["-c", "orders.created", "--keys", "user:*", "--read-only", "--json"],
    );
    let rights = findings(&report.with(1).json(), "rights").join("\n");
    assert!(rights.contains("ACL SETUSER narrow ~user:*"), "{rights}");
}

#[test]
fn why_there_is_no_connection_is_said() {
    let redis = RedisServer::builder().password("hidden").start();
    let port = redis.port();
    for (url, code, parts) in [
        (
            redis.url().replace("hidden", "wr%3Fong"),
            4,
            &["WRONGPASS", "set REDIS_PASSWORD", "percent-encode"][..],
        ),
        (format!("redis://127.0.0.1:{port}"), 4, &["NOAUTH", "set REDIS_PASSWORD"]),
        (
            "redis://127.0.0.1:1".to_owned(),
            3,
            &[
                "Connection refused",
                "comes from REDIS_URL",
                "localhost is the container itself",
                "is Redis running (redis-cli ping",
            ],
        ),
        ("redis://nothing.invalid".to_owned(), 3, &["the name is not known here"]),
    ] {
        let came = check(&url, &[]).with(code);
        for part in parts {
            assert!(came.out.contains(part), "{part:?} is not in:\n{}", came.out);
        }
        assert!(!came.out.contains("hidden") && !came.out.contains("ong"), "{}", came.out);
    }
    // As Docker and Kubernetes have it.
    let mut command = messaging();
    command
        .arg("check")
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", port.to_string())
        .env("REDIS_PASSWORD", "hidden");
    let came = run(command, None).with(0);
    assert!(came.out.contains("(REDIS_HOST and its companions)"), "{}", came.out);
}

#[test]
fn what_the_settings_of_a_server_endanger_is_said() {
    let redis =
        RedisServer::builder().arg("--maxmemory", "900mb").arg("--maxmemory-policy", "allkeys-lru").start();
    let report = check(&redis.url(), &["--json", "--read-only"]).with(0).json();
    assert!(findings(&report, "memory")[0].contains("maxmemory-policy is allkeys-lru: streams"), "{report}");
    assert!(findings(&report, "disk")[0].contains("CONFIG SET appendonly yes"), "{report}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let report = check(&redis.url(), &["--json"]).with(0).json();
    assert!(findings(&report, "memory")[0].contains("nearly full → raise maxmemory"), "{report}");
    let replica = RedisServer::builder().arg("--replicaof", &format!("127.0.0.1 {}", redis.port())).start();
    let report = check(&replica.url(), &["--json", "--read-only"]).with(1).json();
    assert!(
        findings(&report, "server")[1]
            .contains("this is a replica: it takes no writes → connect to the primary"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_undone_in_the_deployment_is_said() {
    let cli = Cli::new();
    with_dead_letters(&cli.messaging().await, "billing", "orders.created", 2).await;
    cli.messaging().await.publish("orders.created", &1).durable().await.unwrap();
    let came = cli.run(&["check", "--channel", "orders.created", "--read-only"]).with(0);
    for part in [
        "nobody is subscribed to orders.created by name",
        "see whether anything arrives: messaging tail orders.created",
        "nobody handles the 1 message of the group billing on orders.created",
        "the group billing has 2 dead letters on orders.created",
        "look: messaging dead list billing",
    ] {
        assert!(came.out.contains(part), "{part:?} is not in:\n{}", came.out);
    }
    let came = cli.run(&["check", "--channel", "orders.created"]).with(0);
    assert!(came.out.contains("not tried on orders.created"), "{}", came.out);
}

/// Answers as a server of this version would, to what is asked before anything else.
fn old_server(version: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut answers, mut commands) = (stream.try_clone().unwrap(), BufReader::new(stream));
                while let Some(words) = read_command(&mut commands) {
                    let info = format!("redis_version:{version}\r\nredis_mode:standalone\r\nrole:master\r\n");
                    let answer = match words[0].to_ascii_uppercase().as_str() {
                        "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                        "PING" => "+PONG\r\n".to_owned(),
                        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
                        "CLIENT" | "MULTI" => "+OK\r\n".to_owned(),
                        "XADD" | "SPUBLISH" | "ZMSCORE" => "-ERR unknown command\r\n".to_owned(),
                        "HVALS" => "*0\r\n".to_owned(),
                        _ => "+QUEUED\r\n".to_owned(),
                    };
                    if answers.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn read_command(input: &mut impl std::io::BufRead) -> Option<Vec<String>> {
    let mut line = || {
        let mut line = String::new();
        (input.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let count: usize = line()?.strip_prefix('*')?.parse().ok()?;
    (0..count)
        .map(|_| {
            line()?;
            line()
        })
        .collect()
}

#[test]
fn a_server_that_is_too_old_is_said_to_be() {
    for (version, part) in [
        ("5.0.14", "too old, nothing but plain messages can be relied on → upgrade it to 6.2 or later"),
        ("6.0.20", "too old, 6.2 is the oldest that is supported"),
        ("6.2.14", "sharded channels are missing, and it cannot tell the lag of groups"),
        ("8.0.1", "good: redis 8.0.1, standalone"),
    ] {
        let report =
            check(&format!("redis://127.0.0.1:{}", old_server(version)), &["--read-only", "--json"]).json();
        let server = findings(&report, "server").join("\n");
        assert!(server.contains(part), "{part:?} is not in: {server}");
        let rights = findings(&report, "rights").join("\n");
        assert!(rights.contains("durable channels: this server does not know XADD"), "{rights}");
        assert_eq!(rights.contains("sharded"), version == "8.0.1", "{rights}");
        assert_eq!(report["well"], json!(false));
    }
}
