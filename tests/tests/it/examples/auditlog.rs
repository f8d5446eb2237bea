//! The audit log: whoever is online hears of what was committed, in the form that is promised, and the database knows it
//! afterwards; of what was rolled back there is nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use messaging_core::Timestamp;
use messaging_sql::sqlx::{self, SqlitePool};
use messaging_tests::{shared_redis, unique};
use serde_json::Value;

use super::{Listener, example, run, told};
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
    // Nothing when the command was rolled back, when the entry was too large, and of what was missed.
    let phone =
        [online(ADA), created(0), acknowledged(), nothing(), completed(0), nothing(), online(ADA), nothing()];
    assert_eq!(told("phone"), phone, "{lines:#?}");
    assert_eq!(told("laptop"), [online(ADA), created(0), acknowledged(), completed(0)]);
    assert_eq!(told("tablet"), [online(GRACE), nothing(), created(1), completed(1)]);
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

/// Hears an entry in exactly the form that is promised, and returns its task.
#[track_caller]
fn hear_entry(listener: &mut Listener, prefix: &str, user: &str, activity: &str) -> String {
    let (channel, payload) = listener.hear();
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
        check_auditlog(arguments, &Program::start(command).end().succeeded());

        let report = hear_entry(&mut listener, &prefix, ADA, "TASK_CREATED");
        let (channel, acknowledgment) = listener.hear();
        assert_eq!(channel, format!("{prefix}auditlog:{ADA}"));
        let moment = acknowledgment.strip_prefix(r#"{"type":"acknowledgment","received_at":""#);
        let moment = moment.and_then(|rest| rest.strip_suffix(r#""}"#));
        assert!(moment.is_some_and(is_moment), "{acknowledgment}");
        // Nothing of what was rolled back.
        assert_eq!(hear_entry(&mut listener, &prefix, ADA, "TASK_COMPLETED"), report);
        let notification = |user: &str, title: &str| {
            let text = format!(r#"{{"type":"notification","text":"well done: {title}"}}"#);
            (format!("{prefix}notification:{user}"), text)
        };
        assert_eq!(listener.hear(), notification(ADA, "write the report"));
        let letter = hear_entry(&mut listener, &prefix, GRACE, "TASK_CREATED");
        assert_eq!(hear_entry(&mut listener, &prefix, GRACE, "TASK_COMPLETED"), letter);
        assert_eq!(listener.hear(), notification(GRACE, "answer the letter"));
        hear_entry(&mut listener, &prefix, ADA, "TASK_COMPLETED");
        assert_eq!(listener.hear(), notification(ADA, "file the scans"));
        let end = format!("{prefix}end");
        redis.cli(&["PUBLISH", &end, "nothing more"]);
        assert_eq!(listener.hear(), (end, "nothing more".to_owned()));
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
    for arguments in [&["--in-box"][..], &["--database"], &["--outbox", "now"]] {
        let Ended { status, lines, complaints } = run("auditlog", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("usage: auditlog [--outbox] [--database <file>]\n"), "{complaints}");
    }
    let complaint = run("auditlog", &["--database", "/nowhere/audit.db"], None).failed(1);
    assert!(complaint.starts_with("auditlog: cannot use the database /nowhere/audit.db: "), "{complaint}");
}
