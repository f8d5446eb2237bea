//! The live wall without its page: what a browser would ask for, over HTTP by hand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use messaging_tests::{RedisServer, free_port};
use serde_json::{Value, json};

use super::{example, run};
use crate::place::PATIENCE;
use crate::programs::{Ended, Program};

/// The program, and where it listens.
struct Live {
    program: Program,
    port: u16,
}

impl Live {
    fn start(arguments: &[&str], url: Option<&str>) -> Self {
        let port = free_port();
        let number = port.to_string();
        let arguments = [&["--port", &number], arguments].concat();
        let mut program = Program::start(example("live", &arguments, url));
        let line = program.wait_for_line(|line| line.starts_with("live on "));
        let expected = format!("live on http://127.0.0.1:{port}  ({}", url.unwrap_or("memory://"));
        assert!(line.starts_with(&expected), "{line}");
        Self { program, port }
    }

    /// Sends a request; the answer's status, its head, and where its body begins.
    fn request(&self, text: &str) -> (u16, String, BufReader<TcpStream>) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).expect("it answers"), 0, "{head}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_lowercase(), reader)
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        let text = format!("GET {path} HTTP/1.1\r\nhost: live\r\nconnection: close\r\n\r\n");
        let (status, head, mut reader) = self.request(&text);
        let mut body = String::new();
        reader.read_to_string(&mut body).expect("it is text");
        (status, head, body)
    }

    fn post(&self, path: &str, json: &Value) -> (u16, String) {
        let body = json.to_string();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: live\r\nconnection: close\r\n");
        let text = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        let (status, _, mut reader) = self.request(&text);
        let mut body = String::new();
        reader.read_to_string(&mut body).expect("it is text");
        (status, body)
    }

    /// A token for somebody.
    fn session(&self, name: &str) -> String {
        let (status, body) = self.post("/session", &json!({ "name": name }));
        assert_eq!(status, 200, "{body}");
        let session: Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(session["expires_in_ms"], 3_600_000);
        session["token"].as_str().expect("a token").to_owned()
    }

    /// What comes of these channels, for whoever has the token.
    fn listen(&self, token: &str, query: &str) -> Stream {
        // An answer in HTTP/1.0 is not cut into chunks.
        let text =
            format!("GET /events?{query} HTTP/1.0\r\nhost: live\r\nauthorization: Bearer {token}\r\n\r\n");
        let (status, head, reader) = self.request(&text);
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        let mut stream = Stream(reader);
        assert_eq!(stream.next("welcome")["type"], "welcome");
        stream
    }

    /// Ends it as a supervisor does.
    fn end(self) -> Vec<String> {
        self.program.terminate();
        self.program.end().succeeded()
    }
}

/// Server-Sent Events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// The data of the next event, which has this name.
    #[track_caller]
    fn next(&mut self, name: &str) -> Value {
        let (mut event, mut data) = (String::new(), None);
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("it writes"), 0, "the stream has ended");
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event),
                Some(("data", json)) => data = Some(serde_json::from_str(json).expect("it is JSON")),
                Some(_) => {}
                None => {
                    if let Some(data) = data.take() {
                        assert_eq!(event, name, "{data}");
                        return data;
                    }
                }
            }
        }
    }

    /// What the next published event says.
    #[track_caller]
    fn event(&mut self) -> Value {
        self.next("event")["data"].take()
    }
}

/// Follows a task to its end.
#[track_caller]
fn check_task(updates: &mut Stream, task: &Value) {
    let (mut progress, mut seen) = (0, Vec::new());
    loop {
        let update = updates.event();
        assert_eq!((&update["task_id"], &update["title"]), (task, &json!("Look at it all")));
        let now = update["progress"].as_u64().expect("a number");
        assert!(now >= progress, "{update}");
        progress = now;
        let status = update["status"].as_str().expect("a text").to_owned();
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        match seen.last().map(String::as_str) {
            // One in six fails.
            Some("completed") => {
                assert_eq!(progress, 100);
                break;
            }
            Some("failed") => break,
            _ => {}
        }
    }
    assert_eq!(seen[..2], ["queued", "in_progress"], "{seen:?}");
    assert_eq!(seen.len(), 3, "{seen:?}");
}

/// What a visitor does on a wall, whatever it runs on.
#[track_caller]
fn check_visit(live: &Live) {
    for (path, kind, begins) in [
        ("/", "text/html", "<!doctype html>"),
        ("/live.css", "text/css", ""),
        ("/live.js", "text/javascript", "// The live wall"),
        ("/messaging.js", "text/javascript", ""),
    ] {
        let (status, head, body) = live.get(path);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}; charset=utf-8")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'self'"), "{path}: {head}");
        assert!(
            !body.is_empty() && body.to_lowercase().starts_with(&begins.to_lowercase()),
            "{path}: {body:.60}"
        );
    }
    assert_eq!(live.get("/nowhere").0, 404);
    assert_eq!(live.get("/events?channel=task_updates").0, 401);
    for name in [json!(""), json!(" \n"), json!("x".repeat(61))] {
        assert_eq!(live.post("/session", &json!({ "name": name })).0, 400);
        assert_eq!(live.post("/tasks", &json!({ "title": name })).0, 400);
    }
    assert_eq!(live.post("/session", &json!({})).0, 422);

    let token = live.session("Ada");
    let mut cameras = live.listen(&token, "entity=CameraEvents");
    assert_eq!(cameras.next("subscribed")["channel"], "camera.events");
    let first = cameras.event();
    for id in 1..3 {
        assert_eq!(cameras.event()["id"].as_u64().unwrap(), first["id"].as_u64().unwrap() + id);
    }
    let mut camera = live.listen(&token, "channel=camera.events&filters=%7B%22camera_id%22%3A2%7D&last=1000");
    camera.next("subscribed");
    assert_eq!(camera.event()["camera_id"], 2);

    let mut updates = live.listen(&token, "entity=TaskUpdates");
    updates.next("subscribed");
    let (status, body) = live.post("/tasks", &json!({ "title": " Look at it all\u{7} " }));
    assert_eq!(status, 202, "{body}");
    let task: Value = serde_json::from_str(&body).expect("it is JSON");
    check_task(&mut updates, &task["task_id"]);
}

#[test]
fn the_live_wall_runs_in_memory_and_ends_when_told() {
    let live = Live::start(&[], None);
    check_visit(&live);
    assert_eq!(live.end().len(), 1);
}

#[test]
fn two_live_walls_on_one_redis_show_the_same() {
    let redis = RedisServer::start();
    let url = redis.url();
    let first = Live::start(&[], Some(&url));
    check_visit(&first);
    let second = Live::start(&["--no-cameras"], Some(&url));
    // A token of the one is good at the other.
    let token = first.session("Grace");
    let mut streams =
        [&first, &second].map(|live| live.listen(&token, "entity=CameraEvents&entity=TaskUpdates"));
    let mut next = 0;
    for stream in &mut streams {
        assert_eq!(stream.next("subscribed")["channel"], "camera.events");
        stream.next("subscribed");
    }
    let [mut one, mut other] = streams;
    // They begin at different moments: from the first event on that both have seen, each shows each.
    let id = |stream: &mut Stream| loop {
        let event = stream.event();
        if event["camera_id"].is_u64() {
            return event["id"].as_u64().expect("a number");
        }
    };
    let (mut ones, mut others) = (id(&mut one), id(&mut other));
    while ones != others {
        if ones < others {
            ones = id(&mut one);
        } else {
            others = id(&mut other);
        }
    }
    for _ in 0..3 {
        next = id(&mut one);
        assert_eq!(next, id(&mut other));
    }
    assert_eq!(next, ones + 3);

    let mut updates = first.listen(&token, "entity=TaskUpdates");
    updates.next("subscribed");
    let (status, body) = second.post("/tasks", &json!({ "title": "Look at it all" }));
    assert_eq!(status, 202, "{body}");
    let task: Value = serde_json::from_str(&body).expect("it is JSON");
    check_task(&mut updates, &task["task_id"]);

    // Whoever is connected is told, and sent away in time.
    let mut left = first.listen(&token, "channel=chat:lobby");
    left.next("subscribed");
    first.program.terminate();
    assert!(left.next("goaway")["after_ms"].is_u64());
    assert_eq!(left.next("disconnect")["code"], 3001);
    assert_eq!(first.program.end().succeeded().len(), 1);
    // The other one goes on.
    assert_eq!(second.post("/session", &json!({ "name": "Linus" })).0, 200);
    assert_eq!(second.end().len(), 1);
}

#[test]
fn the_live_wall_says_how_it_is_used() {
    for arguments in [&["--port"][..], &["--port", "65536"], &["--cameras"], &["8080"]] {
        let Ended { status, lines, complaints } = run("live", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("usage: live [--port <number>] [--no-cameras]\n"), "{complaints}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let complaint = run("live", &["--port", &address.port().to_string()], None).failed(1);
    let expected = format!("live: cannot listen on {address}, try another --port: ");
    assert!(complaint.starts_with(&expected), "{complaint}");
}
