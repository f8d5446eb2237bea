//! A stream of numbered messages, and one fault in it: handlers and subscriptions go on by themselves, what was missed is
//! announced once, and health tells the truth.

use std::num::NonZeroUsize;
use std::time::Duration;

use messaging_core::{
    Config, HandlerState, Handlers, Messaging, Running, State, Subscription, redis_cache, subscribe,
};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};

use crate::acl::heard_by_the_cache;
use crate::outcome;
use crate::place::{PATIENCE, Place, soon};
use crate::sampler::Sampler;
use crate::stream::{Heard, Log, Next, Stream};

#[subscribe("numbers", resync = catch_up, buffer = 100_000)]
async fn on_number(number: u64, log: State<Log>) {
    log.note(Heard::Number(number));
}

async fn catch_up(log: State<Log>, next: State<Next>) {
    log.note(Heard::Resync(next.number()));
}

/// Something that the cache listens for, so that its connection is there too.
#[redis_cache(key = "faults:{key}", ttl = 60, invalidate_on = ["faults.changed"])]
pub async fn cached(key: &str) -> usize {
    key.len()
}

/// The numbers, one after the other, and who hears them: a handler, a subscription to the channel, one to a glob.
struct Trial {
    name: &'static str,
    redis: RedisServer,
    running: Running,
    stream: Stream,
    sampler: Sampler,
    handler: Log,
    by_channel: Log,
    by_glob: Log,
    /// Opened after the stream had begun, and read only when everything is over.
    late: Option<Subscription>,
    /// The key of a value that an event could make out of date.
    cached: String,
}

/// What a fault means for the connection on which the cache hears events.
enum CacheHears {
    Everything,
    Gap,
}

/// Silence is noticed soon, so that the tests are fast, and after more than a machine's hiccups.
fn impatient(config: &mut Config) {
    config.ping_after = Duration::from_millis(300);
    config.ping_timeout = Duration::from_millis(1_200);
    config.connect_timeout = Duration::from_secs(1);
    config.command_timeout = Duration::from_secs(2);
}

/// What a place sets otherwise, so that a busy machine does not look like a slow Redis, as it is by default.
fn default(config: &mut Config) {
    config.command_timeout = Duration::from_secs(2);
    let silence = (config.ping_after, config.ping_timeout);
    assert_eq!(silence, (Duration::from_secs(1), Duration::from_secs(2)));
}

/// Silence means nothing: a loss is known at once, because the connection is closed.
fn patient(config: &mut Config) {
    config.ping_after = Duration::from_millis(50);
    config.ping_timeout = PATIENCE;
}

impl Trial {
    async fn begin(name: &'static str, redis: RedisServer, place: Place) -> Self {
        let (next, handler) = (Next::default(), Log::default());
        let builder = place.builder().handlers(Handlers::only(["faults::interruptions::on_number"]));
        let messaging = builder.state(handler.clone()).state(next.clone()).build().await.unwrap();
        let running = messaging.start().await.unwrap();
        let (by_channel, by_glob) = (Log::default(), Log::default());
        by_channel.follow(messaging.subscribe("numbers").await.unwrap());
        by_glob.follow(messaging.subscribe("num*").await.unwrap());
        assert_eq!(messaging.scope(cached("12345")).await, 5);
        let key = format!("{}:faults:12345", place.config.cache_prefix);
        let stored = async || redis.cli(&["EXISTS", &key]) == "1";
        eventually("the value is stored", stored).await;
        let sampler = Sampler::start(&redis, &messaging);
        let stream = Stream::start(&redis, format!("{}numbers", place.config.channel_prefix), next);
        let (cached, late) = (key, None);
        let trial =
            Self { name, redis, running, stream, sampler, handler, by_channel, by_glob, late, cached };
        trial.goes_on(20).await;
        trial
    }

    /// On a server of its own, without a proxy.
    async fn on(name: &'static str, redis: RedisServer, configure: fn(&mut Config)) -> Self {
        let mut place = Place::at(&redis.url());
        configure(&mut place.config);
        Self::begin(name, redis, place).await
    }

    /// Behind a proxy; the stream is not.
    async fn behind(name: &'static str, configure: fn(&mut Config)) -> (Self, Proxy) {
        let redis = RedisServer::start();
        let proxy = Proxy::before(redis.port()).await;
        let mut place = Place::at(&format!("redis://127.0.0.1:{}", proxy.port()));
        configure(&mut place.config);
        (Self::begin(name, redis, place).await, proxy)
    }

    fn messaging(&self) -> &Messaging {
        self.running.messaging()
    }

    fn is_deaf(&self) -> bool {
        let health = self.messaging().health();
        !health.is_ready() && health.handlers[0].state == HandlerState::Deaf
    }

    async fn noticed(&self) {
        eventually("the loss is noticed", async || self.is_deaf()).await;
    }

    async fn ready(&self) {
        eventually("it is ready again", async || self.messaging().health().is_ready()).await;
    }

    /// Waits until everybody has heard so many of the messages that are published from now on.
    async fn goes_on(&self, messages: u64) {
        let number = self.stream.next.number() + messages;
        for log in [&self.handler, &self.by_channel, &self.by_glob] {
            log.reaches(number).await;
        }
    }

    /// Checks everything after a fault that made this many gaps, for the cache too. Returns how many messages were missed.
    async fn end(self, gaps: usize) -> usize {
        let cache = if gaps == 0 { CacheHears::Everything } else { CacheHears::Gap };
        self.end_with(gaps, cache).await
    }

    async fn end_with(self, gaps: usize, cache: CacheHears) -> usize {
        self.ready().await;
        self.goes_on(20).await;
        let messaging = self.messaging().clone();
        let taken = self.stream.finish().await;
        let last = *taken.last().unwrap();
        for log in [&self.handler, &self.by_channel, &self.by_glob] {
            log.reaches(last).await;
        }
        eventually("what is announced has been answered", async || {
            messaging.health().handlers[0].counts.resyncs == 1 + gaps as u64
        })
        .await;
        let health = messaging.health();
        let (handler, session) = (&health.handlers[0], &health.sessions[0]);
        assert_eq!((handler.counts.gaps, session.reconnects), (gaps as u64, gaps as u64), "{health:?}");
        assert_eq!((handler.counts.dropped, handler.counts.resync_failures), (0, 0), "{health:?}");
        let dropped = async || self.redis.cli(&["EXISTS", &self.cached]) == "0";
        match cache {
            CacheHears::Everything => assert!(!dropped().await, "the cache has missed nothing"),
            CacheHears::Gap => eventually("the cache has dropped what may be out of date", dropped).await,
        }
        let missed = self.handler.check("handler", &taken, gaps);
        self.by_channel.check("subscription", &taken, gaps);
        self.by_glob.check("subscription to a glob", &taken, gaps);
        let config = messaging.config();
        let silence = config.ping_after + config.ping_timeout;
        let bound = if silence < PATIENCE { silence } else { Duration::ZERO };
        let wrong = self.sampler.check(bound).await;
        if let Some(late) = self.late {
            let log = Log::default();
            log.follow(late);
            log.reaches(last).await;
            let first = log.first();
            log.check("late reader", &taken.range(first..).copied().collect(), gaps);
        }
        outcome(
            self.name,
            format!(
                "{} published, {missed} missed, {gaps} gaps, health behind for {} ms",
                taken.len(),
                wrong.as_millis()
            ),
        );
        assert!(soon(self.running.shutdown(PATIENCE)).await.is_complete());
        missed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection() {
    let mut trial = Trial::on("CLIENT KILL", RedisServer::start(), patient).await;
    trial.late = Some(trial.messaging().subscribe("numbers").await.unwrap());
    trial.goes_on(20).await;
    trial.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the gap is announced", async || trial.messaging().health().handlers[0].counts.gaps == 1)
        .await;
    trial.end(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_data() {
    let trial = Trial::on("restart without data", RedisServer::start(), patient).await;
    trial.redis.stop();
    trial.noticed().await;
    trial.redis.start_again();
    trial.end(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_data() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let trial = Trial::on("restart with data", redis, patient).await;
    let cache = trial.messaging().cache("kept");
    cache.set("a", &7, Duration::from_secs(600)).await.unwrap();
    trial.redis.stop();
    trial.noticed().await;
    trial.redis.start_again();
    eventually("the cache is there again", async || cache.get::<u32>("a").await.ok().flatten() == Some(7))
        .await;
    trial.end(1).await;
}

/// With the default settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_a_minute() {
    let trial = Trial::on("outage of a minute", RedisServer::start(), default).await;
    trial.redis.stop();
    let begun = tokio::time::Instant::now();
    trial.noticed().await;
    // The connection for commands has been closed too; it is not known which of them hears of it first.
    let not_sent =
        async || trial.messaging().publish("numbers", &0).await.is_err_and(|error| error.is_not_sent());
    eventually("publishing knows that nobody is there", not_sent).await;
    while begun.elapsed() < Duration::from_secs(60) {
        assert!(trial.is_deaf(), "nobody is there");
        let error = trial.messaging().publish("numbers", &0).await.unwrap_err();
        assert!(error.is_not_sent() && error.is_retryable(), "{error}");
        let called = soon(trial.messaging().scope(cached("123"))).await;
        assert_eq!(called, 3, "functions go on without their cache");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let last_error = trial.messaging().health().sessions[0].last_error.clone().unwrap();
    assert!(last_error.contains("refused"), "{last_error}");
    trial.redis.start_again();
    trial.end(1).await;
}

/// What is half-open stays so; a new connection works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_from_the_server() {
    let (trial, proxy) = Trial::behind("half-open from the server", impatient).await;
    proxy.strand(Direction::ToClient);
    trial.sampler.connections_are_dead(&trial.redis);
    trial.noticed().await;
    assert!(trial.end(1).await > 0, "what the server had sent is missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_both_ways_with_the_default_settings() {
    let (trial, proxy) = Trial::behind("half-open both ways, defaults", default).await;
    proxy.strand(Direction::Both);
    trial.sampler.connections_are_dead(&trial.redis);
    trial.noticed().await;
    assert!(trial.end(1).await > 0, "what the server had sent is missed");
}

/// Messages prove that the connection lives, though nothing gets to the server: it is noticed when they stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_to_the_server() {
    let (trial, proxy) = Trial::behind("half-open to the server", impatient).await;
    proxy.strand(Direction::ToServer);
    trial.goes_on(100).await;
    assert_eq!(trial.messaging().health().sessions[0].reconnects, 0, "nothing was missed");
    trial.stream.rest();
    trial.sampler.connections_are_dead(&trial.redis);
    trial.noticed().await;
    trial.ready().await;
    trial.stream.go_on();
    trial.end(1).await;
}

/// Neither the old connections nor new ones carry anything for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_network() {
    let (trial, proxy) = Trial::behind("network interrupted", impatient).await;
    proxy.hold(Direction::Both);
    trial.sampler.connections_are_dead(&trial.redis);
    trial.noticed().await;
    let from = trial.stream.next.number();
    eventually("more is published", async || trial.stream.next.number() > from + 100).await;
    assert!(trial.is_deaf());
    proxy.heal().await;
    assert!(trial.end(1).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs() {
    let trial = Trial::on("SIGSTOP", RedisServer::start(), impatient).await;
    trial.sampler.connections_are_dead(&trial.redis);
    trial.redis.pause();
    trial.sampler.paused(true);
    trial.noticed().await;
    trial.sampler.paused(false);
    trial.redis.resume();
    trial.end(1).await;
}

/// What comes back before it was given up has missed nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_for_a_moment() {
    let trial = Trial::on("SIGSTOP for a moment", RedisServer::start(), patient).await;
    trial.redis.pause();
    let silent = async || trial.messaging().health().sessions[0].last_alive_ms >= Some(300);
    eventually("it is silent for longer than a ping", silent).await;
    trial.redis.resume();
    assert_eq!(trial.end(0).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_refused_for_a_while() {
    let redis = RedisServer::builder().acl("user narrow on >pw ~* &* +@all").start();
    let mut place = Place::at(&redis.url_for("narrow", "pw"));
    patient(&mut place.config);
    let prefix = place.config.channel_prefix.clone();
    let cached = heard_by_the_cache(&place.config);
    let trial = Trial::begin("re-SUBSCRIBE refused", redis, place).await;
    // Redis closes the connections of those who have lost the right to what they are subscribed to.
    let mut allow = vec!["ACL", "SETUSER", "narrow", "resetchannels"];
    allow.extend(cached.iter().map(String::as_str));
    trial.redis.cli(&allow);
    let refusals = || {
        let health = trial.messaging().health();
        let reasons =
            health.sessions[0].unconfirmed.iter().filter_map(|unconfirmed| unconfirmed.reason.clone());
        reasons.filter(|reason| reason.contains("NOPERM")).count()
    };
    eventually("both are refused, and health says why", async || refusals() == 2).await;
    assert!(trial.is_deaf());
    let from = trial.stream.next.number();
    eventually("more is published", async || trial.stream.next.number() > from + 100).await;
    let (channel, glob) = (format!("&{prefix}numbers"), format!("&{prefix}num*"));
    trial.redis.cli(&["ACL", "SETUSER", "narrow", &channel, &glob]);
    assert!(trial.end_with(1, CacheHears::Everything).await >= 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network() {
    let (trial, proxy) = Trial::behind("150 ms each way", patient).await;
    proxy.delay(Duration::from_millis(150));
    trial.goes_on(200).await;
    trial.stream.rest();
    let silent = async || trial.messaging().health().sessions[0].last_alive_ms >= Some(100);
    eventually("it is silent", silent).await;
    trial.stream.go_on();
    trial.goes_on(20).await;
    assert_eq!(trial.end(0).await, 0);
}

/// What is asked anew takes a while to get there: until it is answered nobody listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_on_a_slow_network() {
    let (trial, proxy) = Trial::behind("cut, 150 ms each way", patient).await;
    proxy.delay(Duration::from_millis(150));
    proxy.cut();
    trial.noticed().await;
    trial.end(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_network() {
    let (trial, proxy) = Trial::behind("8 KB/s", patient).await;
    proxy.throttle(NonZeroUsize::new(8_000).unwrap());
    trial.goes_on(100).await;
    proxy.heal().await;
    assert_eq!(trial.end(0).await, 0);
}
