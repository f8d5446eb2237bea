//! Publishing on durable channels: appended and published by one script, after the stream has been registered.

use std::time::Duration;

use futures_util::future::join;
use redis::{cmd, pipe};
use tokio::time::Instant;

use super::pipe::Replies;
use super::{APPEND, Ask, Link, Redis, count, millis, unlink, unmarked};
use crate::backend::streams::Append;
use crate::backend::{CacheKey, Generation, Outgoing, Published, Reply};
use crate::dispatch::Carrier;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;
use crate::stream::StreamInfo;

/// One command of a batch.
enum Step<'a> {
    Forget,
    /// The stream that is registered is only there if it is used, so that a refusal is that of its message.
    Register,
    Message(&'a Outgoing),
}

/// What a batch has come to so far.
#[derive(Default)]
struct Tally {
    receivers: u64,
    any_sent: bool,
    refusal: Option<Error>,
}

impl Tally {
    fn note(&mut self, message: &Outgoing, outcome: Result<u64>) {
        match outcome {
            Ok(receivers) => {
                self.receivers += receivers;
                self.any_sent = true;
            }
            Err(error) if self.refusal.is_none() => {
                self.refusal = Some(error.context(format_args!("channel {:?}", message.channel)));
            }
            Err(_) => {}
        }
    }

    fn finish(self, forgotten: Result<()>, generation: Generation) -> Result<Published> {
        match self.refusal {
            None => Ok(Published { receivers: self.receivers, forgotten, generation }),
            Some(error) => Err(if self.any_sent { error.maybe_sent() } else { error }),
        }
    }
}

impl Redis {
    /// Publishes messages of which at least one is durable.
    pub(super) async fn publish_durably(
        &self,
        messages: &[Outgoing],
        forget: &[CacheKey],
    ) -> Result<Published> {
        // A sharded message is in two steps: its channel may be on another node than its stream.
        let apart = |message: &Outgoing| {
            let append = message.durable.as_deref();
            append.is_some_and(|append| {
                append.durability.wait_replicas.is_some() || message.carrier == Carrier::Sharded
            })
        };
        if self.link.is_cluster() || messages.iter().any(apart) {
            self.publish_one_by_one(messages, forget).await
        } else {
            self.publish_in_a_batch(messages, forget).await
        }
    }

    async fn publish_in_a_batch(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<Published> {
        let mut bytes = Vec::new();
        let mut steps = Vec::new();
        if !forget.is_empty() {
            bytes.extend_from_slice(&unlink(forget).get_packed_command());
            steps.push(Step::Forget);
        }
        let mut registering = Vec::new();
        for message in messages {
            match message.durable.as_deref() {
                // Without its mark: that would have to be one with the removal.
                None => self.encode_message(&mut bytes, message),
                Some(append) => {
                    if self.registered.is_due(append.stream.template()) {
                        registering.push(append);
                        let all = StreamInfo::all(&append.stream, &append.durability);
                        bytes.extend_from_slice(&self.registration(&all).get_packed_command());
                        steps.push(Step::Register);
                    }
                    bytes.extend_from_slice(
                        &self.append_command(append, message, forget, false).get_packed_command(),
                    );
                }
            }
            steps.push(Step::Message(message));
        }
        let until = deadline(self.command_timeout);
        let replies = match self.publisher.send(until, steps.len(), |out| out.extend_from_slice(&bytes)).await
        {
            Ok(Replies::One(reply)) => vec![reply],
            Ok(Replies::Several(replies)) => replies,
            Err(error) => {
                registering.iter().for_each(|append| self.registered.forget(append.stream.template()));
                return Err(error);
            }
        };
        let (mut forgotten, mut registered, mut tally) = (Ok(()), None, Tally::default());
        for (step, reply) in steps.into_iter().zip(replies) {
            match step {
                Step::Forget => forgotten = count(&self.endpoint, reply).map(drop),
                Step::Register => registered = Some(count(&self.endpoint, reply).map(drop)),
                Step::Message(message) => {
                    let outcome = match message.durable.as_deref() {
                        None => count(&self.endpoint, reply),
                        Some(append) => {
                            self.appended(until, append, message, forget, reply, registered.take()).await
                        }
                    };
                    tally.note(message, outcome);
                }
            }
        }
        tally.finish(forgotten, self.publisher.noted())
    }

    /// What appending came to. A server that does not know the script is sent it.
    async fn appended(
        &self,
        until: Instant,
        append: &Append,
        message: &Outgoing,
        forget: &[CacheKey],
        reply: Reply,
        registered: Option<Result<()>>,
    ) -> Result<u64> {
        let reply = match reply {
            Reply::Error(error) if error.starts_with("NOSCRIPT") => {
                let command = self.append_command(append, message, forget, true).get_packed_command();
                match self.publisher.send(until, 1, |out| out.extend_from_slice(&command)).await? {
                    Replies::One(reply) => reply,
                    Replies::Several(mut replies) => replies.pop().unwrap_or(Reply::Done),
                }
            }
            reply => reply,
        };
        match reply {
            Reply::Integer(receivers) => self.note_appended(until, append, receivers, registered).await,
            // A script that is refused may have done a part.
            other => count(&self.endpoint, other).map_err(Error::of_a_script),
        }
    }

    /// Takes the script's answer apart. Who finds a new stream registers it, whatever was there before: all of the
    /// server's data may have gone.
    async fn note_appended(
        &self,
        until: Instant,
        append: &Append,
        receivers: i64,
        registered: Option<Result<()>>,
    ) -> Result<u64> {
        let template = append.stream.template();
        let is_new = receivers < 0;
        let receivers = if is_new { -1 - receivers } else { receivers };
        let registered = match registered {
            None if is_new => {
                let all = StreamInfo::all(&append.stream, &append.durability);
                Some(self.register_until(until, &all).await)
            }
            registered => registered,
        };
        match registered {
            None => {}
            Some(Ok(())) => self.registered.note(template),
            // It is there from the last time: only whether it still is could not be made sure of.
            Some(Err(_)) if !is_new && self.registered.is_known(template) => {}
            Some(Err(error)) => {
                self.registered.forget(template);
                let text = "the message was appended, but its stream could not be registered, so that not every subscriber finds it";
                return Err(error.maybe_sent().context(text));
            }
        }
        Ok(receivers.unsigned_abs())
    }

    /// The command that appends and publishes, and marks that unless these keys are still there; with the script itself, or
    /// only its name.
    fn append_command(
        &self,
        append: &Append,
        message: &Outgoing,
        forget: &[CacheKey],
        whole: bool,
    ) -> redis::Cmd {
        let channel = self.prefixed(message);
        let publish = if message.carrier == Carrier::Sharded { "" } else { "PUBLISH" };
        let mark = message.mark.as_ref().map(|mark| (mark, forget));
        let (keys, arguments) = self.append_parts(append, &channel, &message.payload, publish, mark);
        let mut command = if whole { cmd("EVAL") } else { cmd("EVALSHA") };
        command.arg(if whole { APPEND } else { self.stream_scripts.append.get_hash() });
        command.arg(keys.len()).arg(&keys);
        arguments.iter().for_each(|argument| _ = command.arg(&argument[..]));
        command
    }

    /// Publishes messages one after the other: where they go to several servers, or wait for replicas. All of it takes at
    /// most the command timeout; the keys may take half of that, so that the messages go out in any case.
    async fn publish_one_by_one(&self, messages: &[Outgoing], forget: &[CacheKey]) -> Result<Published> {
        let until = deadline(self.command_timeout);
        let half = self.command_timeout / 2;
        let (forgotten, generation) = join(self.forget_within(half, forget), self.generation(half)).await;
        let mut tally = Tally::default();
        let unmarked = if forgotten.is_err() { unmarked(messages) } else { Vec::new() };
        let messages = if forgotten.is_err() { &unmarked } else { messages };
        for message in messages {
            let outcome = match message.durable.as_deref() {
                None => self.publish_plainly_until(until, message).await,
                Some(append) => match self.append_apart(until, append, message).await {
                    Ok(_) if message.carrier == Carrier::Sharded => {
                        let shard = Outgoing { durable: None, ..message.clone() };
                        self.publish_plainly_until(until, &shard).await.map_err(Error::maybe_sent)
                    }
                    appended => appended,
                },
            };
            tally.note(message, outcome);
            if tally.refusal.is_some() {
                break;
            }
        }
        tally.finish(forgotten, generation)
    }

    async fn publish_plainly_until(&self, until: Instant, message: &Outgoing) -> Result<u64> {
        if self.is_cluster() {
            let published =
                self.publish_on_cluster(until, std::slice::from_ref(message), &[], Ask::Nothing).await;
            return published.map(|done| done.receivers);
        }
        let published = self.publish_together(until, std::slice::from_ref(message), &[]).await;
        published.map(|done| done.receivers)
    }

    /// Appends on a connection on which nobody minds waiting, and registers the stream meanwhile, which may be on another
    /// server.
    async fn append_apart(&self, until: Instant, append: &Append, message: &Outgoing) -> Result<u64> {
        let due = self.registered.is_due(append.stream.template());
        let registering = async {
            if due {
                self.register_until(until, &StreamInfo::all(&append.stream, &append.durability)).await
            } else {
                Ok(())
            }
        };
        let (registered, receivers) = join(registering, self.append_until(until, append, message)).await;
        self.note_appended(until, append, receivers?, due.then_some(registered)).await
    }

    async fn append_until(&self, until: Instant, append: &Append, message: &Outgoing) -> Result<i64> {
        let command = self.append_command(append, message, &[], true);
        let limit = left(until);
        let Some(replicas) = append.durability.wait_replicas else {
            let sent = async |mut connection| command.query_async(&mut connection).await;
            return self.link.run(limit, sent).await.map_err(Error::of_a_script);
        };
        let patience = limit.mul_f64(0.8);
        let mut batch = pipe();
        batch.add_command(command).cmd("WAIT").arg(replicas.get()).arg(millis(patience));
        let sent = async |mut connection| batch.query_async(&mut connection).await;
        let (receivers, confirmed): (i64, u32) =
            self.confirming().run(limit, sent).await.map_err(Error::of_a_script)?;
        if confirmed < replicas.get() {
            return Err(not_confirmed(confirmed, replicas.get(), patience));
        }
        Ok(receivers)
    }

    async fn register_until(&self, until: Instant, streams: &[StreamInfo]) -> Result<()> {
        self.command_within(left(until), &self.registration(streams)).await
    }

    fn confirming(&self) -> &Link {
        self.confirming.get_or_init(|| self.link.another())
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn not_confirmed(confirmed: u32, wanted: u32, patience: Duration) -> Error {
    let text = format!(
        "the message was appended and published, but {confirmed} of {wanted} replicas confirmed it within {patience:?}; a failover could lose it"
    );
    Error::new(ErrorKind::Timeout, text)
}
