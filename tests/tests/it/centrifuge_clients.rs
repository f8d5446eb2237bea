//! The unmodified clients of Centrifugo with the gateway on a real Redis: `centrifuge` of npm in Node.js and in Chromium, and
//! `centrifuge-python`. They run scenarios of their own (`tests/centrifugo`), and ask over HTTP for what is beyond a client:
//! tokens, a cut, another gateway.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use messaging_core::{Messaging, Retention, Running};
use messaging_gateway::{
    ClientRequest, DisconnectCode, Gateway, Jwt, Limits, Rate, RpcError, UnsubscribeCode,
};
use messaging_tests::{Proxy, Python, free_port, shared_redis};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::gateway::client::serve;
use crate::jwt::{SECRET, seconds, token};
use crate::place::{Place, Probe};

/// Longer than any scenario takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a client asks for that it cannot do itself.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Control {
    /// Where the gateway is.
    Endpoint,
    /// `exp` is in so many seconds; `key` signs it in place of ours.
    Token {
        claims: Value,
    },
    /// Numbers, from `first` on.
    Publish {
        channel: Option<String>,
        #[serde(default)]
        channels: Vec<String>,
        #[serde(default)]
        first: u64,
        count: u64,
    },
    /// Nobody can connect, and who is connected is cut off.
    Refuse,
    Heal,
    /// The gateway ends.
    Stop,
    /// Another one, at the same address.
    Start,
    /// All that channels have kept is removed.
    Forget,
    Unsubscribe {
        user: String,
        channel: String,
        code: u16,
    },
    Disconnect {
        user: String,
        code: u16,
    },
    /// Waits until this was sent.
    Sent {
        expected: Value,
    },
    /// Waits until nobody is connected.
    Alone,
    /// How far a page is.
    Tell {
        line: String,
    },
}

/// A gateway that can be ended and begun again, behind a network that can be cut.
struct Lab {
    place: Place,
    port: u16,
    proxy: Proxy,
    sent: Probe,
    /// What a page has told.
    told: watch::Sender<Vec<String>>,
    /// Who publishes.
    messaging: Messaging,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    gateway: Gateway,
    running: Running,
    task: JoinHandle<std::io::Result<()>>,
}

impl Lab {
    async fn new() -> Arc<Self> {
        let (place, port) = (Place::redis(), free_port());
        let lab = Self {
            messaging: durable(&place).await,
            place,
            port,
            proxy: Proxy::before(port).await,
            sent: Probe::default(),
            told: watch::Sender::default(),
            serving: Mutex::default(),
        };
        lab.start().await;
        Arc::new(lab)
    }

    async fn start(&self) {
        let messaging = durable(&self.place).await;
        let many = Rate { burst: 1_000_000.try_into().unwrap(), per_second: 1_000_000.try_into().unwrap() };
        let mut limits = Limits::default();
        limits.subscriptions = 1_000.try_into().unwrap();
        limits.connections_per_user = 10_000.try_into().unwrap();
        limits.connections_per_address = 10_000.try_into().unwrap();
        (limits.commands, limits.sends) = (many, many);
        (limits.ping, limits.goaway) = (Duration::from_secs(1), Duration::from_millis(100));
        let sent = self.sent.clone();
        let gateway = Gateway::builder(&messaging)
            .jwt(Jwt::hs256(SECRET).unwrap().leeway(Duration::from_secs(3)))
            .allowed_origins(["*"])
            .limits(limits)
            .rpc("echo", async |request: ClientRequest| request.data::<Value>())
            .rpc("client", async |request: ClientRequest| Ok(request.client().to_owned()))
            .rpc("fail", async |_| Err::<(), _>(RpcError::new(1_000, "it is too much").temporary()))
            .on_message(move |message| {
                let sent = sent.clone();
                async move { sent.tell(message.data::<Value>().unwrap()) }
            })
            .build()
            .unwrap();
        let running = messaging.start().await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = until("the port is free again", || std::net::TcpListener::bind(address).ok()).await;
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let app = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, app).await });
        *self.serving.lock().await = Some(Serving { gateway, running, task });
    }

    async fn stop(&self) {
        let Serving { gateway, running, task } = self.serving.lock().await.take().unwrap();
        task.abort();
        let _ = task.await;
        running.shutdown(Duration::from_secs(60)).await;
        drop(gateway);
    }

    async fn with_gateway<T>(&self, what: impl FnOnce(&Gateway) -> T) -> T {
        what(&self.serving.lock().await.as_ref().unwrap().gateway)
    }

    async fn carry_out(&self, control: Control) -> Result<Value, String> {
        match control {
            Control::Endpoint => {
                let endpoint = format!("ws://127.0.0.1:{}/connection/websocket", self.proxy.port());
                return Ok(json!({ "endpoint": endpoint }));
            }
            Control::Token { mut claims } => {
                if let Some(exp) = claims["exp"].as_i64() {
                    claims["exp"] = seconds(exp).into();
                }
                let mut token = token(claims.clone());
                if claims["key"].is_string() {
                    // Of nobody's key.
                    token.truncate(token.len() - 8);
                    token.push_str("AAAAAAAA");
                }
                return Ok(json!({ "token": token }));
            }
            Control::Publish { channel, channels, first, count } => {
                for channel in channel.into_iter().chain(channels) {
                    for number in first..first + count {
                        let published = self.messaging.publish(&channel, &number).await;
                        published.map_err(|error| error.to_string())?;
                    }
                }
            }
            Control::Refuse => {
                self.proxy.refuse().await;
                self.proxy.cut();
            }
            Control::Heal => self.proxy.heal().await,
            Control::Stop => self.stop().await,
            Control::Start => self.start().await,
            Control::Forget => {
                let keys = shared_redis().cli(&["KEYS", &format!("*{}*", self.place.config.namespace)]);
                let is_stream = |key: &&str| shared_redis().cli(&["TYPE", key]).trim() == "stream";
                for stream in keys.lines().filter(is_stream) {
                    let removed = shared_redis().cli(&["XTRIM", stream, "MAXLEN", "0"]);
                    assert_ne!(removed.trim(), "0", "something was kept in {stream}");
                }
            }
            Control::Unsubscribe { user, channel, code } => {
                let code = match code {
                    2000 => UnsubscribeCode::Server,
                    _ => UnsubscribeCode::InsufficientState,
                };
                let ended = self.with_gateway(|gateway| gateway.unsubscribe(&user, &channel, code)).await;
                assert_eq!(ended, 1);
            }
            Control::Disconnect { user, code } => {
                let code = match code {
                    3011 => DisconnectCode::ForceReconnect,
                    _ => DisconnectCode::ForceNoReconnect,
                };
                assert_eq!(self.with_gateway(|gateway| gateway.disconnect(&user, code)).await, 1);
            }
            Control::Sent { expected } => {
                assert_eq!(self.sent.wait_for(1).await, [format!("{expected:?}")]);
            }
            Control::Alone => {
                let gateway = self.with_gateway(Gateway::clone).await;
                until("nobody is connected", || (gateway.connections() == 0).then_some(())).await;
            }
            Control::Tell { line } => self.told.send_modify(|told| told.push(line)),
        }
        Ok(json!({}))
    }
}

/// As `eventually`, for what may run on any thread.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("it takes too long: {what}"))
}

async fn durable(place: &Place) -> Messaging {
    place.builder().durable("kept.{name}", Retention::DEFAULT).build().await.unwrap()
}

/// The body is JSON whatever a client calls it.
async fn control(State(lab): State<Arc<Lab>>, body: String) -> Result<String, (StatusCode, String)> {
    let wrong = |error: String| (StatusCode::BAD_REQUEST, error);
    let control = serde_json::from_str(&body).map_err(|error| wrong(error.to_string()))?;
    // It goes on also if whoever asked for it does not wait.
    let done = tokio::spawn(async move { lab.carry_out(control).await }).await;
    done.map_err(|error| wrong(error.to_string()))?.map(|value| value.to_string()).map_err(wrong)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("centrifugo")
}

/// Where `node_modules` with the client is. Without it `cargo xtask test` lists the suite as skipped.
fn modules() -> Option<PathBuf> {
    std::env::var_os("MESSAGING_TEST_CENTRIFUGO").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Runs a program to its end, which has to be a good one.
async fn run(mut command: Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut program = command.spawn().expect("the program can be run");
    let (mut lines, mut errors) =
        (BufReader::new(program.stdout.take().unwrap()).lines(), program.stderr.take().unwrap());
    let complaints = tokio::spawn(async move {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text).await;
        text
    });
    let mut said = Vec::new();
    let reading = async {
        while let Ok(Some(line)) = lines.next_line().await {
            said.push(line);
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
    drop(lines);
    let _ = program.start_kill();
    let is_done = said.last().is_some_and(|line| line == "done");
    assert!(in_time && is_done, "after {said:?}: {}", complaints.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_javascript_does_everything_in_node() {
    let Some(modules) = modules() else { return };
    let address = serve(Router::new().route("/control", post(control)).with_state(Lab::new().await)).await;
    let mut node = Command::new("node");
    node.arg(directory().join("node.mjs")).arg(modules).arg(address.to_string());
    run(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_python_does_everything() {
    let Some(python) = Python::with(&["centrifuge"]) else { return };
    let address = serve(Router::new().route("/control", post(control)).with_state(Lab::new().await)).await;
    let mut command = Command::new(python.interpreter());
    command.arg(directory().join("scenario.py")).arg(address.to_string());
    run(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_javascript_does_everything_in_a_browser() {
    let chromium = std::env::var_os("MESSAGING_TEST_CHROMIUM").filter(|path| !path.is_empty());
    let (Some(modules), Some(chromium)) = (modules(), chromium) else { return };
    let lab = Lab::new().await;
    let file = |path: PathBuf, kind: &'static str| {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        get(async move || ([(CONTENT_TYPE, kind)], text).into_response())
    };
    let client = modules.join("node_modules/centrifuge/dist/centrifuge.js");
    let router = Router::new()
        .route("/control", post(control))
        .route("/", file(directory().join("page.html"), "text/html"))
        .route("/scenario.js", file(directory().join("scenario.js"), "text/javascript"))
        .route("/centrifuge.js", file(client, "text/javascript"))
        .with_state(Arc::clone(&lab));
    let address = serve(router).await;
    let profile = std::env::temp_dir().join(messaging_tests::unique("chromium"));
    let mut browser = start(&chromium, &profile, &format!("http://{address}/"));
    let mut told = lab.told.subscribe();
    let is_over =
        |told: &Vec<String>| told.last().is_some_and(|line| line == "done" || line.starts_with("failed"));
    let in_time = tokio::time::timeout(PATIENCE, told.wait_for(is_over)).await.is_ok();
    let _ = browser.kill().await;
    let _ = std::fs::remove_dir_all(&profile);
    let told = lab.told.borrow().clone();
    assert!(in_time, "the page has not ended, after {told:?}");
    assert_eq!(told.last().map(String::as_str), Some("done"), "{told:?}");
}

fn start(chromium: &OsString, profile: &Path, url: &str) -> tokio::process::Child {
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg("--remote-debugging-port=0").arg(url);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("chromium can be run")
}
