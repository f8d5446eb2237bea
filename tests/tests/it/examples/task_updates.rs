//! Task updates: whatever service tells of a task, every browser hears of it, at each API; who comes late, or was away, is told
//! of what was before; and it is deployed as it is described.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use messaging_tests::{Python, RedisServer, eventually, free_port};
use serde_json::{Value, json};

use super::deployment::deployment;
use super::{Listener, PROGRAMS, example, run, told};
use crate::gateway::client::Client;
use crate::place::PATIENCE;
use crate::programs::{Ended, Program, repository};

/// What a task is told of on its way, in the form that others read it: the end of the JSON, after the task's id.
const UPDATES: [&str; 4] = [
    r#""status":"pending","message":"Waiting for a worker","progress":0}"#,
    r#""status":"in_progress","message":"Processing commission...","progress":50}"#,
    r#""status":"in_progress","message":"Producing","progress":75}"#,
    r#""status":"completed","message":"It is done","progress":100}"#,
];

/// With tasks numbered as they appear.
fn without_chance(lines: &[String]) -> Vec<String> {
    let mut tasks = Vec::new();
    let mut word = |word: &str| {
        if !(word.len() == 13 && word.starts_with("task-")) {
            return word.to_owned();
        }
        let number = tasks.iter().position(|task| task == word).unwrap_or_else(|| {
            tasks.push(word.to_owned());
            tasks.len() - 1
        });
        format!("task{number}")
    };
    lines.iter().map(|line| line.split(' ').map(&mut word).collect::<Vec<_>>().join(" ")).collect()
}

/// Checks what the show tells: who does what, who is told of it, and what was kept.
#[track_caller]
fn check_show(lines: &[String]) {
    let lines = without_chance(lines);
    let told = |who: &str| told(&lines, who);
    let way = |task: usize, last: &str| {
        [
            format!("pending task{task} Waiting for a worker, 0 %"),
            format!("in_progress task{task} Processing commission..., 50 %"),
            format!("in_progress task{task} Producing, 75 %"),
            last.replace("task", &format!("task{task}")),
        ]
    };
    let first = way(0, "completed task It is done, 100 %");
    let second = way(1, "failed task There is nothing to produce, 75 %");
    let general = ["system_notification System maintenance scheduled".to_owned()];
    assert_eq!(told("browser"), [&first[..], &general, &second].concat(), "{lines:#?}");
    assert_eq!(told("second browser"), first);
    let called = ["0 Pending, 0", "0 InProgress, 50", "0 InProgress, 75", "0 Completed, 100"];
    let called = called.map(|told| format!("task update task{told} %"));
    assert_eq!(told("callback")[..4], called);
    for (who, what) in
        [("task-manager", "takes up"), ("commission-worker", "processes"), ("pipeline-worker", "produces")]
    {
        let tasks = [r#"task0 "a poster of the sea""#, r#"task1 """#];
        assert_eq!(told(who), tasks.map(|task| format!("{what} {task}")));
    }
    assert_eq!(told("operator"), ["dead letter a task without a title cannot be produced"]);
    assert_eq!(lines.last().map(String::as_str), Some("Shut down: everything was finished."));
}

#[test]
fn the_show_runs_in_memory() {
    check_show(&run("task_updates", &[], None).succeeded());
}

/// Hears the updates of a task on both of its channels, in exactly the form that is promised.
#[track_caller]
fn hear_task(listener: &mut Listener, updates: &[&str]) -> String {
    let mut task = None;
    for update in updates {
        let (channel, payload) = listener.hear();
        assert_eq!(channel, "task_updates");
        let read: Value = serde_json::from_str(&payload).unwrap();
        let task = task.get_or_insert_with(|| read["task_id"].as_str().unwrap().to_owned());
        assert_eq!(payload, format!(r#"{{"task_id":"{task}",{update}"#));
        assert_eq!(listener.hear(), (format!("task_updates:{task}"), payload));
    }
    task.expect("there are updates")
}

#[test]
fn the_show_runs_on_redis_where_anybody_can_hear_it_and_it_is_kept() {
    let redis = RedisServer::start();
    let mut listener = Listener::psubscribe(&redis, "*_updates*");
    // Also on what another run has left behind.
    for runs in 1..3 {
        check_show(&run("task_updates", &[], Some(&redis.url())).succeeded());
        hear_task(&mut listener, &UPDATES);
        let general = r#"{"type":"system_notification","message":"System maintenance scheduled"}"#;
        assert_eq!(listener.hear(), ("general_updates".to_owned(), general.to_owned()));
        let failed = r#""status":"failed","message":"There is nothing to produce","progress":75}"#;
        hear_task(&mut listener, &[UPDATES[0], UPDATES[1], UPDATES[2], failed]);
        for (stream, entries) in [("task_updates", 8), ("task_updates:<>", 8), ("general_updates", 1)] {
            let length = redis.cli(&["XLEN", &format!("msg:{{{stream}}}:stream")]);
            assert_eq!(length.trim(), (entries * runs).to_string(), "{stream}");
        }
    }
}

/// The roles on one Redis, which they are told of by its host, port, number and password.
struct Deployment {
    redis: RedisServer,
}

const PASSWORD: &str = "s3cr3t-of-redis";

impl Deployment {
    fn start() -> Self {
        let redis = RedisServer::builder().password(PASSWORD).arg("--appendonly", "yes");
        Self { redis: redis.arg("--appendfsync", "always").start() }
    }

    fn role(&self, role: &str, arguments: &[&str]) -> Program {
        let mut command = PROGRAMS.command("task_updates");
        command.args(["--role", role]).args(arguments);
        command.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", self.redis.port().to_string());
        command.env("REDIS_DB", "2").env("REDIS_PASSWORD", PASSWORD).env("REDIS_SSL", "false");
        let mut program = Program::start(command);
        let greeting = format!("{role} on redis://127.0.0.1:{}/2", self.redis.port());
        program.wait_for_line(|line| line == greeting);
        program
    }

    fn api(&self) -> Api {
        let [listen, internal] = [(); 2].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let arguments = ["--listen", &listen.to_string(), "--internal", &internal.to_string()];
        let mut program = self.role("api", &arguments);
        program.wait_for_line(|line| line.starts_with("operators: "));
        Api { program, listen, internal }
    }
}

/// An API, and where it listens.
struct Api {
    program: Program,
    listen: SocketAddr,
    internal: SocketAddr,
}

impl Api {
    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
        request(self.listen, &format!("POST {path} HTTP/1.0\r\n{head}\r\n\r\n{body}"))
    }

    /// Begins a task; its id.
    #[track_caller]
    fn begin(&self, title: &str) -> String {
        let (status, body) = self.post("/tasks", &json!({ "title": title }));
        assert_eq!(status, 202, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["task_id"].as_str().unwrap().to_owned()
    }

    /// What operators and probes are told.
    fn internal(&self, path: &str) -> (u16, String) {
        request(self.internal, &format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    async fn is_ready(&self, wanted: u16) {
        eventually("the API says whether it is ready", async || self.internal("/readyz").0 == wanted).await;
    }

    /// A browser, which is subscribed to what `subscription` says.
    async fn browser(&self, subscription: Value) -> (Client, Value) {
        let mut client = Client::connect(self.listen).await;
        client.say(json!({ "type": "hello" })).await;
        client.next_of("welcome").await;
        let subscribed = client.subscribe(subscription).await;
        (client, subscribed)
    }
}

fn request(address: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    stream.write_all(text.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

/// The updates of a task, as clients get them.
fn updates_of(task: &str) -> Vec<Value> {
    let update = |rest: &&str| format!(r#"{{"task_id":"{task}",{rest}"#).parse().unwrap();
    UPDATES.iter().map(update).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_heard_at_every_api_and_nothing_is_lost() {
    let deployment = Deployment::start();
    let (api, other) = (deployment.api(), deployment.api());
    api.is_ready(200).await;
    other.is_ready(200).await;
    let (mut everything, _) = other.browser(json!({ "entity": "TaskUpdates" })).await;

    // Nobody works yet. What is to be done waits, and what is told of it is heard at both APIs.
    let task = api.begin("a poster of the sea");
    let channel = format!("task_updates:{task}");
    let (mut one, _) = api.browser(json!({ "entity": "TaskUpdates", "params": { "task_id": task } })).await;
    let workers =
        ["task-manager", "commission-worker", "pipeline-worker"].map(|role| deployment.role(role, &[]));
    assert_eq!(everything.data(4).await, updates_of(&task));
    assert_eq!(one.data(4).await, updates_of(&task));

    // One client may hear of some tasks only: by a filter, or by the channel of one.
    let (mut failures, _) =
        api.browser(json!({ "entity": "TaskUpdates", "filters": { "status": { "in": ["failed"] } } })).await;
    let another = other.begin("");
    assert_eq!(failures.data(1).await[0]["task_id"], another);
    let heard = everything.data(4).await;
    assert!(heard.iter().all(|update| update["task_id"] == another), "{heard:?}");
    assert!(one.aside().is_empty());

    // General updates have a channel of their own.
    let (mut general, _) = api.browser(json!({ "entity": "GeneralUpdates" })).await;
    let announcement = json!({ "type": "system_notification", "message": "System maintenance scheduled" });
    assert_eq!(other.post("/announcements", &announcement).0, 202);
    assert_eq!(general.data(1).await, [announcement]);

    // Messages are kept small.
    assert_eq!(other.post("/tasks", &json!({ "title": "x".repeat(201) })).0, 400);
    let long = json!({ "type": "system_notification", "message": "x".repeat(201) });
    assert_eq!(other.post("/announcements", &long).0, 400);

    // Who was not there is told of what was before.
    let (_, late) = other.browser(json!({ "channel": channel, "last": 10 })).await;
    assert_eq!(past(&late), updates_of(&task));

    // Also if Redis has crashed in between: it was on its disk. Meanwhile the APIs live, and are not ready.
    deployment.redis.stop();
    api.is_ready(503).await;
    assert_eq!(api.internal("/healthz"), (200, "ok\n".to_owned()));
    deployment.redis.start_again();
    api.is_ready(200).await;
    let (_, kept) = api.browser(json!({ "channel": channel, "last": 10 })).await;
    assert_eq!(past(&kept), updates_of(&task));
    let third = api.begin("a poster of the hills");
    let channel = format!("task_updates:{third}");
    let (mut browser, subscribed) = other.browser(json!({ "channel": channel, "last": 10 })).await;
    // What was published before it subscribed came with the answer.
    let mut heard = past(&subscribed);
    let left = UPDATES.len() - heard.len();
    heard.extend(browser.data(left).await);
    assert_eq!(heard, updates_of(&third));

    // What an operator watches.
    let (_, metrics) = api.internal("/metrics");
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).parse().unwrap()
    };
    assert!(value("messaging_gateway_connections") >= 1 && value("messaging_gateway_events_total") >= 8);
    assert_eq!(value("messaging_ready"), 1);

    // Asked to end, clients are told to go elsewhere, and what is being done is finished.
    api.program.terminate();
    assert_eq!(one.closed().await, Some(3001));
    for program in workers.into_iter().chain([api.program, other.program]) {
        program.terminate();
        let lines = ended_well(program);
        assert!(!lines.contains(PASSWORD), "{lines}");
    }
}

/// The events that came with the answer to a subscription, if any did.
fn past(subscribed: &Value) -> Vec<Value> {
    subscribed["events"].as_array().into_iter().flatten().map(|event| event["data"].clone()).collect()
}

/// What a program has said that was asked to end, perhaps twice.
fn ended_well(program: Program) -> String {
    let Ended { status, lines, complaints } = program.end();
    assert!(status.success() && complaints.is_empty(), "{status}: {complaints}");
    lines.join("\n")
}

#[test]
fn an_update_is_published_over_tls() {
    if !RedisServer::has_tls() {
        return;
    }
    let redis = RedisServer::builder().tls().start();
    let with_ssl = |ssl: &str| {
        let mut command = PROGRAMS.command("task_updates");
        command.env("REDIS_HOST", "localhost").env("REDIS_PORT", redis.port().to_string());
        command.env("REDIS_SSL", ssl).env("REDIS_SSL_CA_CERTS", &redis.tls_files().ca_certs);
        Program::start(command)
    };
    let lines = with_ssl("true").end().succeeded();
    assert_eq!(lines[0], format!("all roles on rediss://localhost:{}/0", redis.port()));
    check_show(&lines);
    with_ssl("maybe").end().failed(1);
}

#[test]
fn task_updates_says_how_it_is_used() {
    for arguments in [
        &["--role"][..],
        &["--role", "frontend"],
        &["--role", "api", "--listen", "8080"],
        &["--role", "task-manager", "--listen", "127.0.0.1:0"],
        &["api"],
    ] {
        let Ended { status, lines, complaints } = run("task_updates", arguments, None);
        assert_eq!((status.code(), lines.len()), (Some(2), 0), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("usage: task_updates [--role <role>]"), "{complaints}");
    }
    for role in ["api", "task-manager", "commission-worker", "pipeline-worker"] {
        let complaint = run("task_updates", &["--role", role], Some("memory://")).failed(1);
        assert!(complaint.contains("two processes cannot share memory; set REDIS_HOST"), "{complaint}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let complaint = Program::start(example("task_updates", &["--listen", &address], None)).end().failed(1);
    assert!(complaint.starts_with(&format!("task_updates: cannot listen on {address}, ")), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compose_file_starts_redis_and_every_role() {
    let Some(deployment) = deployment("task_updates").await else { return };
    let services = deployment["compose"]["services"].as_object().expect("there are services");
    let redis = &services["redis"];
    assert_eq!(redis["image"], "redis:7-alpine");
    assert_eq!(redis["restart"], "unless-stopped");
    assert!(redis["ports"][0].as_str().unwrap().ends_with("6379:6379"));
    let health = &redis["healthcheck"];
    assert_eq!(health["test"], json!(["CMD", "redis-cli", "ping"]));
    assert_eq!(
        [&health["interval"], &health["timeout"], &health["retries"]],
        [&json!("30s"), &json!("10s"), &json!(3)]
    );
    // What was published is on its disk.
    let command = redis["command"].as_array().unwrap();
    assert!(command.windows(2).any(|words| words == ["--appendonly", "yes"]), "{command:?}");
    assert_eq!(redis["volumes"], json!(["redis:/data"]));
    let mut roles = Vec::new();
    for (name, service) in services.iter().filter(|(name, _)| *name != "redis") {
        let environment = service["environment"].as_object().unwrap();
        check_environment(|variable| environment.get(variable).and_then(Value::as_str).map(str::to_owned));
        assert_eq!(service["depends_on"]["redis"]["condition"], "service_healthy", "{name}");
        let role = check_role(&service["command"], name);
        let mut probe = vec!["CMD"];
        probe.extend(if role == "api" { probe_of_api() } else { probe_of(&role) });
        assert_eq!(service["healthcheck"]["test"], json!(probe), "{name}");
        roles.push(role);
    }
    check_roles(roles);
    let file = repository().join("examples/deploy/task_updates/Dockerfile");
    let file = std::fs::read_to_string(file).unwrap();
    for words in ["--package examples --bin task_updates", "--package messaging-cli --bin messaging"] {
        assert!(file.contains(words), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifests_fit_the_schemas_of_kubernetes() {
    let Some(deployment) = deployment("task_updates").await else { return };
    let manifests = deployment["manifests"].as_array().expect("there are manifests");
    let of_kind = |kind: &str| -> Vec<&Value> {
        manifests.iter().filter(|manifest| manifest["kind"] == kind).collect()
    };
    let named = |kind: &str, name: &str| {
        let found = of_kind(kind).into_iter().find(|manifest| manifest["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let labels = |deployment: &Value| deployment["spec"]["template"]["metadata"]["labels"].clone();
    let selects = |selector: &Value, labels: &Value| {
        selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value)
    };
    // Services lead to pods that there are, to ports that they have.
    for service in of_kind("Service") {
        let selected: Vec<_> = of_kind("Deployment")
            .into_iter()
            .filter(|deployment| selects(&service["spec"]["selector"], &labels(deployment)))
            .collect();
        let [selected] = selected[..] else { panic!("{service}") };
        let ports = selected["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(ports.iter().any(|other| other["name"] == port["targetPort"]), "{service}");
        }
    }
    // Redis keeps what was published, asks for a password, and is reached by our services only.
    let redis = &named("Deployment", "redis")["spec"]["template"]["spec"];
    let container = &redis["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    for pair in [["--appendonly", "yes"], ["--requirepass", "$(REDISCLI_AUTH)"]] {
        assert!(arguments.windows(2).any(|words| words == pair), "{arguments:?}");
    }
    assert_eq!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"], "redis");
    assert_eq!(container["livenessProbe"]["exec"]["command"], json!(["redis-cli", "ping"]));
    assert!(container["readinessProbe"].is_object());
    let claim = &redis["volumes"][0]["persistentVolumeClaim"]["claimName"];
    named("PersistentVolumeClaim", claim.as_str().unwrap());
    let policy = &named("NetworkPolicy", "redis")["spec"];
    assert!(selects(&policy["podSelector"]["matchLabels"], &labels(named("Deployment", "redis"))));
    let allowed = &policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"];

    let mut roles = Vec::new();
    for deployment in of_kind("Deployment") {
        let name = deployment["metadata"]["name"].as_str().unwrap();
        let pod = &deployment["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        if name == "redis" {
            continue;
        }
        assert!(selects(allowed, &labels(deployment)), "{name}");
        let settings =
            &named("ConfigMap", container["envFrom"][0]["configMapRef"]["name"].as_str().unwrap())["data"];
        let password = container["env"][0]["name"] == "REDIS_PASSWORD"
            && container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "redis";
        check_environment(|variable| match variable {
            "REDIS_PASSWORD" => password.then(String::new),
            _ => settings[variable].as_str().map(str::to_owned),
        });
        let role = check_role(&container["args"], name);
        let [alive, ready] = ["livenessProbe", "readinessProbe"].map(|probe| &container[probe]);
        if role == "api" {
            let get = |path: &str| json!({ "path": path, "port": "internal" });
            assert_eq!([&alive["httpGet"], &ready["httpGet"]], [&get("/healthz"), &get("/readyz")]);
        } else {
            let command = json!({ "command": probe_of(&role) });
            assert_eq!([&alive["exec"], &ready["exec"]], [&command; 2], "{name}");
        }
        roles.push(role);
    }
    check_roles(roles);
}

/// What asks whether a worker of this container lives: its group is called as its role.
fn probe_of(role: &str) -> Vec<&str> {
    vec!["messaging", "health", "--quiet", "--group", role, "--here"]
}

/// The API is asked itself.
fn probe_of_api() -> Vec<&'static str> {
    vec!["messaging", "health", "--quiet", "--http", "http://127.0.0.1:9090/readyz"]
}

/// Every variable that says where Redis is has to be there.
#[track_caller]
fn check_environment(of: impl Fn(&str) -> Option<String>) {
    let variables =
        [("REDIS_HOST", "redis"), ("REDIS_PORT", "6379"), ("REDIS_DB", "0"), ("REDIS_SSL", "false")];
    for (variable, value) in variables {
        assert_eq!(of(variable).as_deref(), Some(value), "{variable}");
    }
    assert!(of("REDIS_PASSWORD").is_some());
}

/// The role that a service is started in. The arguments are such that the program understands them.
#[track_caller]
fn check_role(arguments: &Value, service: &str) -> String {
    let arguments: Vec<&str> =
        arguments.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    // It goes as far as the settings.
    let complaint = run("task_updates", &arguments, Some("memory://")).failed(1);
    assert!(complaint.contains("two processes cannot share memory"), "{complaint}");
    let ["--role", role, ..] = arguments[..] else { panic!("{arguments:?}") };
    assert!(service.ends_with(role), "{service}: {role}");
    role.to_owned()
}

#[track_caller]
fn check_roles(mut roles: Vec<String>) {
    roles.sort();
    assert_eq!(roles, ["api", "commission-worker", "pipeline-worker", "task-manager"]);
}

/// The commands that operators type.
#[test]
fn the_makefile_has_every_command_that_is_described() {
    let directory = repository().join("examples/deploy/task_updates");
    for (target, commands) in [
        ("docker-run-local", &["up --build"][..]),
        ("test-redis", &["messaging check"]),
        ("redis-status", &["ps redis", "redis-cli ping"]),
        ("redis-cli", &["exec redis redis-cli"]),
        ("redis-logs", &["logs redis"]),
        ("health-check", &["ps", "messaging health", "messaging stats"]),
        ("show-logs", &["logs"]),
    ] {
        let makefile = std::fs::read_to_string(directory.join("Makefile")).unwrap();
        let rule = makefile.split(&format!("\n{target}:")).nth(1).unwrap_or_else(|| panic!("no {target}"));
        let rule = rule.split("\n\n").next().unwrap();
        for command in commands {
            assert!(rule.contains(&format!("$(COMPOSE) {command}")) || rule.contains(command), "{rule}");
        }
    }
}

/// redis-py listens to what is published, and publishes what browsers hear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_takes_part_in_task_updates() {
    let Some(python) = Python::find() else { return };
    let deployment = Deployment::start();
    let api = deployment.api();
    api.is_ready(200).await;
    let workers =
        ["task-manager", "commission-worker", "pipeline-worker"].map(|role| deployment.role(role, &[]));
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/2", deployment.redis.port());
    let mut script = python.run(include_str!("../../../python/task_updates.py"), &[&url]);
    assert_eq!(script.read_line().await, "subscribed to task_updates");
    let task = api.begin("a poster of the sea");
    for update in updates_of(&task) {
        let heard: Value = serde_json::from_str(&script.read_line().await).unwrap();
        assert_eq!(heard, update);
    }
    let (mut browser, _) = api.browser(json!({ "channel": "task_updates" })).await;
    script.send_line("task-123");
    let expected = json!({
        "task_id": "task-123", "status": "in_progress", "message": "Processing commission...", "progress": 50,
    });
    assert_eq!(browser.data(1).await, [expected]);
    script.finish().await;
    drop(workers);
}
