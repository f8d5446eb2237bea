//! The audit log: whoever is online hears of what was committed, in the form that is promised, and the database knows it
//! afterwards; of what was rolled back there is nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use messaging_core::Timestamp;
use messaging_sql::sqlx::{self, SqlitePool};
use messaging_tests::{shared_redis, unique};
use serde_json::{Value, json};

use super::{Listener, example, run, told};
use crate::gateway::client::{Client, Events};
use crate::programs::{Ended, Program};

const ADA: &str = "123e4567-e89b-12d3-a456-426614174000";
const GRACE: &str = "7d9f0c52-3c1e-4b8a-9f57-0e6a2b4c8d10";

/// RFC 3339 in UTC, with `Z`.
fn is_moment(text: &str) -> bool {
    serde_json::from_value(text.into()).is_ok_and(|moment: Timestamp| moment.to_string() == text)
}

/// With moments hidden, and tasks numbered as they appear.
fn without_chance(lines: &[String]) -> Vec<String> {
    let mut tasks = Vec::new();
    let mut word = |word: &str| {
        if is_moment(word) {
            return "<moment>".to_owned();
        }
        if word.len() != 8 || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return word.to_owned();
        }
        let number = tasks.iter().position(|task| task == word).unwrap_or_else(|| {
            tasks.push(word.to_owned());
            tasks.len() - 1
        });
        number.to_string()
    };
    lines.iter().map(|line| line.split(' ').map(&mut word).collect::<Vec<_>>().join(" ")).collect()
}

/// Checks what the audit log tells: who hears what, what is undone, lost and missed, and what the database knows.
#[track_caller]
fn check_auditlog(arguments: &[&str], lines: &[String]) {
    let lines = without_chance(lines);
    let told = |who: &str| told(&lines, who);
    let online = |user: &str| format!("subscribed auditlog:{user}");
    let created = |task: usize| format!("TASK_CREATED task {task} at <moment>");
    let completed = |task: usize| format!("TASK_COMPLETED task {task} at <moment>");
    let acknowledged = || "acknowledgment received at <moment>".to_owned();
    let nothing = || "None nothing within 100ms".to_owned();
    let broadcast = || format!(r#"broadcast {{"seen":"write the report"}} from {ADA}"#);
    // Nothing when the command was rolled back, when the entry was too large, and of what was missed.
    let phone = [
        online(ADA),
        created(0),
        acknowledged(),
        broadcast(),
        nothing(),
        completed(0),
        nothing(),
        online(ADA),
        nothing(),
    ];
    assert_eq!(told("phone"), phone, "{lines:#?}");
    assert_eq!(told("laptop"), [online(ADA), created(0), acknowledged(), broadcast(), completed(0)]);
    assert_eq!(told("tablet"), [online(GRACE), nothing(), nothing(), created(1), completed(1)]);
    let refused = format!("refused auditlog:{GRACE}: permission denied");
    assert_eq!(told("browser"), [online(ADA), refused, broadcast(), completed(0)]);
    let inbox = [&*format!("subscribed notification:{ADA}"), "notification well done: write the report"];
    assert_eq!(told("inbox"), inbox);
    let everybody = [(ADA, 0), (GRACE, 1), (ADA, 2)];
    let everybody =
        everybody.map(|(user, task)| format!("TASK_COMPLETED on auditlog:{user}: task {task} at <moment>"));
    assert_eq!(told("everybody"), everybody);
    assert_eq!(told("history"), [completed(2), created(2), completed(0), created(0)]);

    let commands = [
        "create_task write the report",
        "rolled back there is no task 00000000-0000-0000-0000-000000000000",
        "complete_tasks write the report",
        "create_task answer the letter",
        "complete_tasks answer the letter",
        "create_task file the scans",
        "complete_tasks file the scans",
    ];
    assert_eq!(told("command"), commands);
    assert_eq!(told("database"), ["still open write the report"]);
    assert_eq!(told("pubsub"), [format!("unsubscribed auditlog:{ADA}")]);
    let (health, outbox) = (told("health"), told("outbox"));
    let logged = lines.iter().filter(|line| line.starts_with("ERROR")).collect::<Vec<_>>();
    let reason = format!("the payload for \"auditlog:{ADA}\" has ");
    if arguments.contains(&"--outbox") {
        assert!(outbox[0].starts_with(&format!("failing {reason}")), "{outbox:?}");
        assert_eq!((&outbox[1..], logged.len()), (&["discarded somebody has decided so".to_owned()][..], 0));
        assert_eq!(health.len(), 0);
    } else {
        assert_eq!((health, outbox), (vec!["lost events 1".to_owned()], vec![]));
        let [logged] = logged[..] else { panic!("{logged:?}") };
        let what = "a change is committed, but its event could not be published";
        assert!(logged.contains(what) && logged.contains(&reason), "{logged}");
    }
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_audit_log_runs_in_memory_and_leaves_nothing_behind() {
    let temporary = temporary("auditlog");
    std::fs::create_dir(&temporary).unwrap();
    for arguments in [&[][..], &["--outbox"]] {
        let mut command = example("auditlog", arguments, None);
        command.env("TMPDIR", &temporary);
        check_auditlog(arguments, &Program::start(command).end().succeeded());
    }
    // Not empty: it is not removed.
    std::fs::remove_dir(&temporary).unwrap();
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique(name))
}

/// The next message, but for what processes tell each other of the cache.
#[track_caller]
fn hear(listener: &mut Listener) -> (String, String) {
    loop {
        let (channel, payload) = listener.hear();
        if !channel.ends_with(":cache:gone") {
            return (channel, payload);
        }
    }
}

/// Hears an entry in exactly the form that is promised, and returns its task.
#[track_caller]
fn hear_entry(listener: &mut Listener, prefix: &str, user: &str, activity: &str) -> String {
    let (channel, payload) = hear(listener);
    assert_eq!(channel, format!("{prefix}auditlog:{user}"));
    let entry: Value = serde_json::from_str(&payload).unwrap();
    let text =
        |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{payload}"));
    let (id, task) = (text("/id"), text("/entity_id"));
    for id in [id, task] {
        id.parse::<uuid::Uuid>().unwrap();
    }
    let (occurred_at, created_at) = (text("/occurred_at"), text("/meta/action_created_at"));
    assert!(is_moment(occurred_at) && is_moment(created_at), "{payload}");
    let expected = format!(
        r#"{{"id":"{id}","user_id":"{user}","activity_type":"{activity}","occurred_at":"{occurred_at}","entity_id":"{task}","entity_type":"task","meta":{{"action_created_at":"{created_at}"}}}}"#
    );
    assert_eq!(payload, expected);
    task.to_owned()
}

#[test]
fn entries_of_the_audit_log_are_heard_on_redis_and_stored_there_nowhere() {
    let redis = shared_redis();
    for arguments in [&[][..], &["--outbox"]] {
        let (prefix, namespace) = (format!("{}.", unique("audit")), unique("ns"));
        let mut listener = Listener::psubscribe(redis, &format!("{prefix}*"));
        // Somebody who watches does not disturb.
        let mut watching = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
        write!(watching, "SUBSCRIBE {prefix}auditlog:{ADA}\r\n").unwrap();
        watching.read_exact(&mut [0]).unwrap();
        let mut command = example("auditlog", arguments, Some(&redis.url()));
        command.env("MESSAGING_CHANNEL_PREFIX", &prefix).env("MESSAGING_NAMESPACE", &namespace);
        // Who is logged in.
        let sessions = unique("sessions");
        command.env("MESSAGING_CACHE_PREFIX", &sessions);
        check_auditlog(arguments, &Program::start(command).end().succeeded());

        let report = hear_entry(&mut listener, &prefix, ADA, "TASK_CREATED");
        let (channel, acknowledgment) = hear(&mut listener);
        assert_eq!(channel, format!("{prefix}auditlog:{ADA}"));
        let moment = acknowledgment.strip_prefix(r#"{"type":"acknowledgment","received_at":""#);
        let moment = moment.and_then(|rest| rest.strip_suffix(r#""}"#));
        assert!(moment.is_some_and(is_moment), "{acknowledgment}");
        let (channel, broadcast) = hear(&mut listener);
        assert_eq!(channel, format!("{prefix}auditlog:{ADA}"));
        let broadcast: Value = serde_json::from_str(&broadcast).unwrap();
        assert_eq!(
            (&broadcast["sender"]["user"], &broadcast["data"]),
            (&ADA.into(), &json!({ "seen": "write the report" }))
        );
        // Nothing of what was rolled back.
        assert_eq!(hear_entry(&mut listener, &prefix, ADA, "TASK_COMPLETED"), report);
        let notification = |user: &str, title: &str| {
            let text = format!(r#"{{"type":"notification","text":"well done: {title}"}}"#);
            (format!("{prefix}notification:{user}"), text)
        };
        assert_eq!(hear(&mut listener), notification(ADA, "write the report"));
        let letter = hear_entry(&mut listener, &prefix, GRACE, "TASK_CREATED");
        assert_eq!(hear_entry(&mut listener, &prefix, GRACE, "TASK_COMPLETED"), letter);
        assert_eq!(hear(&mut listener), notification(GRACE, "answer the letter"));
        hear_entry(&mut listener, &prefix, ADA, "TASK_COMPLETED");
        assert_eq!(hear(&mut listener), notification(ADA, "file the scans"));
        let end = format!("{prefix}end");
        redis.cli(&["PUBLISH", &end, "nothing more"]);
        assert_eq!(hear(&mut listener), (end, "nothing more".to_owned()));
        for name in [prefix, namespace] {
            assert_eq!(redis.cli(&["KEYS", &format!("*{name}*")]).trim(), "");
        }
    }
}

#[tokio::test]
async fn the_database_of_the_audit_log_holds_what_was_committed() {
    let file = temporary("audit.db");
    let path = file.to_str().expect("the target directory has a readable name");
    for (runs, arguments) in (1..).zip([&["--database", path][..], &["--database", path, "--outbox"]]) {
        // As many entries of the history as were asked for, however many there are.
        check_auditlog(arguments, &run("auditlog", arguments, None).succeeded());
        let pool = SqlitePool::connect(&format!("sqlite://{path}")).await.unwrap();
        let count = async |what: &str| -> i64 {
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {what}")));
            query.fetch_one(&pool).await.unwrap()
        };
        // Three tasks in each run, each created and completed once; what was rolled back is not there.
        assert_eq!(count("tasks WHERE is_completed").await, 3 * runs);
        assert_eq!(count("tasks").await, 3 * runs);
        for activity in ["TASK_CREATED", "TASK_COMPLETED"] {
            let told_of =
                format!("tasks JOIN audit_logs ON entity_id = tasks.id WHERE activity_type = '{activity}'");
            assert_eq!(count(&told_of).await, 3 * runs);
        }
        assert_eq!(count("audit_logs").await, 6 * runs);
        // The entry that was too large to be published.
        assert_eq!(count("audit_logs WHERE length(meta) > 1048576").await, runs);
        // All others and the notifications went by the outbox, in the second run.
        assert_eq!(count("messaging_outbox WHERE published_ms IS NOT NULL").await, 8 * (runs - 1));
        assert_eq!(count("messaging_outbox").await, 8 * (runs - 1));
        pool.close().await;
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_audit_log_says_how_it_is_used() {
    for arguments in [&["--in-box"][..], &["--database"], &["--outbox", "now"], &["--serve", "65536"]] {
        let Ended { status, lines, complaints } = run("auditlog", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(
            complaints.starts_with("usage: auditlog [--outbox] [--database <file>] [--serve <port>]\n"),
            "{complaints}"
        );
    }
    let complaint = run("auditlog", &["--database", "/nowhere/audit.db"], None).failed(1);
    assert!(complaint.starts_with("auditlog: cannot use the database /nowhere/audit.db: "), "{complaint}");
}

/// The program as it serves browsers.
struct Site {
    program: Program,
    address: SocketAddr,
}

impl Site {
    fn start(url: Option<&str>, prefix: &str) -> Self {
        let mut command = example("auditlog", &["--serve", "0"], url);
        command.env("MESSAGING_CHANNEL_PREFIX", prefix);
        let mut program = Program::start(command);
        let line = program.wait_for_line(|line| line.starts_with("serving browsers on "));
        let address = line.strip_prefix("serving browsers on http://").unwrap().split(';').next().unwrap();
        Self { program, address: address.parse().unwrap() }
    }

    /// The status and the body of the answer.
    fn post(&self, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(crate::place::PATIENCE)).unwrap();
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head =
            format!("POST {path} HTTP/1.0\r\nhost: site\r\ncontent-type: text/plain\r\n{authorization}");
        write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn token(&self, user: &str) -> String {
        let (status, token) = self.post(&format!("/login/{user}"), None, "");
        assert_eq!(status, 200, "{token}");
        token
    }

    /// The id of a new task.
    fn create_task(&self, token: &str, title: &str) -> String {
        let (status, body) = self.post("/tasks", Some(token), title);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// A browser of whoever the token is of, that hears her own channel.
    async fn browser(&self, token: &str, filters: Value) -> Client {
        let mut browser = Client::connect(self.address).await;
        browser.hello(token).await;
        // Whatever it says of a user counts for nothing.
        let params = json!({ "user_id": GRACE });
        browser.subscribe(json!({ "entity": "auditlog", "params": params, "filters": filters })).await;
        browser
    }
}

/// What browsers see of the audit log, whatever it runs on.
async fn check_browsers(site: &Site, prefix: &str, mut listener: Option<Listener>) {
    let own = format!("auditlog:{ADA}");
    let (ada, grace) = (site.token(ADA), site.token(GRACE));
    let mut browser = site.browser(&ada, json!({})).await;
    let mut other = site.browser(&ada, json!({})).await;
    let mut completed = site.browser(&ada, json!({ "activity_type": { "in": ["TASK_COMPLETED"] } })).await;
    let mut of_grace = site.browser(&grace, json!({})).await;
    let subscribed = browser.subscribe(json!({ "entity": "notification" })).await;
    assert_eq!(subscribed["channel"], format!("notification:{ADA}"));
    let mut stream =
        Events::at(site.address, "entity=auditlog", &[("Authorization", &format!("Bearer {ada}"))]).await;
    assert_eq!(stream.next_of("subscribed").await.data["channel"], *own);

    // What she does is heard by her own browsers only, as it was committed; and by those that want only some of it, that.
    let task = site.create_task(&ada, "write the report");
    assert_eq!(site.post(&format!("/tasks/{task}/complete"), Some(&ada), "").0, 200);
    let (user, activities) = (ADA, ["TASK_CREATED", "TASK_COMPLETED"]);
    for client in [&mut browser, &mut other] {
        for activity in activities {
            let event =
                client.next_where(|message| message["channel"] == *own && message["type"] == "event").await;
            let data = &event["data"];
            assert_eq!((&data["activity_type"], &data["entity_id"]), (&activity.into(), &json!(task)));
            assert_eq!((&data["user_id"], &data["entity_type"]), (&user.into(), &"task".into()));
        }
    }
    assert_eq!(completed.data(1).await[0]["activity_type"], "TASK_COMPLETED");
    for activity in activities {
        assert_eq!(stream.next_of("event").await.data["data"]["activity_type"], activity);
    }
    let notified = browser.next_of("event").await;
    assert_eq!(notified["data"], json!({ "type": "notification", "text": "well done: write the report" }));
    if let Some(listener) = &mut listener {
        assert_eq!(hear_entry(listener, prefix, ADA, "TASK_CREATED"), task);
        assert_eq!(hear_entry(listener, prefix, ADA, "TASK_COMPLETED"), task);
        hear(listener);
    }

    // What one sends, all of them hear, and she cannot say that she is somebody else.
    let data = json!({ "user": GRACE, "text": "on my way" });
    let sent = browser
        .ask(json!({ "type": "send", "channel": own, "data": data, "sender": { "user": GRACE } }))
        .await;
    assert_eq!(sent["type"], "ok", "{sent}");
    for client in [&mut browser, &mut other] {
        let heard = client.next_of("event").await;
        assert_eq!((&heard["channel"], &heard["data"]["data"]), (&json!(own), &data));
        assert_eq!(heard["data"]["sender"]["user"], ADA);
    }
    if let Some(listener) = &mut listener {
        let (channel, payload) = hear(listener);
        let payload: Value = serde_json::from_str(&payload).unwrap();
        assert_eq!((channel, &payload["data"]), (format!("{prefix}{own}"), &data));
    }

    // Others are as far away as if they were not there.
    let theirs = format!("auditlog:{GRACE}");
    for (kind, channel) in
        [("subscribe", &*theirs), ("send", &theirs), ("subscribe", "auditlog:*"), ("send", "notification:x")]
    {
        let refused = browser.ask(json!({ "type": kind, "channel": channel, "data": 1 })).await;
        assert_eq!((&refused["type"], &refused["code"]), (&"error".into(), &103.into()), "{refused}");
    }
    let letter = site.create_task(&grace, "answer the letter");
    let first = of_grace.data(1).await;
    assert_eq!((&first[0]["user_id"], &first[0]["entity_id"]), (&GRACE.into(), &json!(letter)));
    assert_eq!(site.post(&format!("/tasks/{letter}/complete"), Some(&ada), "").0, 404);

    // Who cannot say who he is hears and does nothing.
    let mut nobody = Client::connect(site.address).await;
    nobody.say(json!({ "type": "hello", "token": "made up" })).await;
    assert!(nobody.closed().await.is_some());
    for token in [None, Some("made up")] {
        assert_eq!(site.post("/tasks", token, "nothing").0, 401);
    }
    assert_eq!(site.post("/login/ada", None, "").0, 400);
    // One that goes away costs the others nothing.
    drop(other);
    site.create_task(&ada, "one more");
    assert_eq!(browser.data(1).await[0]["activity_type"], "TASK_CREATED");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_hear_their_users_in_memory_and_are_sent_away_in_time() {
    let site = Site::start(None, "");
    check_browsers(&site, "", None).await;
    let mut left = site.browser(&site.token(ADA), json!({})).await;
    site.program.terminate();
    left.next_of("goaway").await;
    assert_eq!(left.next_of("disconnect").await["code"], 3001);
    drop(left);
    let Site { program, .. } = site;
    assert_eq!(program.end().succeeded().last().map(String::as_str), Some("Shut down."));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_hear_what_anybody_publishes_on_redis() {
    let redis = shared_redis();
    let prefix = format!("{}.", unique("audit"));
    let listener = Listener::psubscribe(redis, &format!("{prefix}*"));
    let site = Site::start(Some(&redis.url()), &prefix);
    check_browsers(&site, &prefix, Some(listener)).await;
    // The document's form of what a client has sent, from a service in Python.
    let mut browser = site.browser(&site.token(ADA), json!({})).await;
    let foreign = json!({ "type": "client_broadcast", "data": { "from": "elsewhere" } });
    redis.cli(&["PUBLISH", &format!("{prefix}auditlog:{ADA}"), &foreign.to_string()]);
    assert_eq!(browser.data(1).await[0], foreign);
    // However many listen, Redis sends it once.
    let second = site.browser(&site.token(ADA), json!({})).await;
    let own = format!("{prefix}auditlog:{ADA}");
    assert_eq!(redis.cli(&["PUBSUB", "NUMSUB", &own]).lines().last(), Some("1"));
    drop((browser, second));
    let Site { program, .. } = site;
    program.terminate();
    program.end().succeeded();
}
