//! What an ACL allows, found out without doing any of it: Redis looks at the rights of a command of a transaction when it
//! is queued, and the transaction is never carried out.

use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::time::timeout;

use super::Redis;
use super::answers::{describe, first_refusal};
use crate::backend::operate::{Feature, Refusal, Scope, Tried};
use crate::error::{Error, ErrorKind, Result};

/// What the library sends, by what it is for. `%` marks what depends on the deployment.
const COMMANDS: &[(Feature, &[&str])] = &[
    (
        Feature::Publish,
        &["PING", "PUBLISH %channel -", "GET %cache:gen", "HVALS %cache:families", "UNLINK %value"],
    ),
    (
        Feature::Subscribe,
        &["SUBSCRIBE %channel", "UNSUBSCRIBE %channel", "PSUBSCRIBE %channel", "PUNSUBSCRIBE %channel"],
    ),
    (Feature::Sharded, &["SPUBLISH %channel -", "SSUBSCRIBE %channel", "SUNSUBSCRIBE %channel"]),
    (
        Feature::Durable,
        &[
            "EVALSHA - 1 %stream:stream",
            "EVAL - 1 %stream:stream",
            "SCRIPT LOAD -",
            "HSET %registry - -",
            "HVALS %registry",
            "TIME",
            "INCR %stream:n",
            "DECR %stream:n",
            "GET %stream:n",
            "XADD %stream:stream * - -",
            "XTRIM %stream:stream MAXLEN 1",
            "PEXPIRE %stream:stream 1",
            "XRANGE %stream:stream - +",
            "XREVRANGE %stream:stream + -",
            "XREAD STREAMS %stream:stream 0",
            "XINFO STREAM %stream:stream",
        ],
    ),
    (
        Feature::Queue,
        &[
            "EVALSHA - 1 %stream:stream",
            "SCRIPT LOAD -",
            "TIME",
            "HVALS %registry",
            "SET %since -",
            "GET %since",
            "XGROUP CREATE %stream:stream %group $ MKSTREAM",
            "XGROUP DELCONSUMER %stream:stream %group -",
            "XREADGROUP GROUP %group - STREAMS %stream:stream >",
            "XACK %stream:stream %group 0-1",
            "XPENDING %stream:stream %group",
            "XCLAIM %stream:stream %group - 0 0-1",
            "XINFO GROUPS %stream:stream",
            "XINFO CONSUMERS %stream:stream %group",
            "XRANGE %stream:stream - +",
            "ZADD %stream:alive:%group 1 -",
            "ZREM %stream:alive:%group -",
            "ZSCORE %stream:alive:%group -",
            "ZCARD %stream:delay:%group",
            "ZCOUNT %stream:alive:%group 0 1",
            "ZRANGE %stream:delay:%group 0 0",
            "ZRANGEBYSCORE %stream:delay:%group 0 1",
            "ZREMRANGEBYSCORE %stream:alive:%group 0 1",
            "HSET %stream:attempts:%group - -",
            "HGET %stream:attempts:%group -",
            "HDEL %stream:attempts:%group -",
            "SET %stream:owner:%group -",
            "DEL %stream:owner:%group",
            "PEXPIRE %stream:alive:%group 1",
            "XADD %stream:dead:%group * - -",
            "XTRIM %stream:dead:%group MAXLEN 1",
            "XDEL %stream:dead:%group 0-1",
        ],
    ),
    (
        Feature::Cache,
        &[
            "MGET %value",
            "GET %value",
            "SET %value -",
            "PTTL %value",
            "UNLINK %value",
            "SET %lease -",
            "PEXPIRE %lease 1",
            "EVALSHA - 1 %value",
            "SCRIPT LOAD -",
            "SCAN 0",
            "TIME",
            "INFO server",
            "PUBSUB NUMSUB %internal:cache:own",
            "SET %cache:gen -",
            "HSET %cache:families - -",
            "HDEL %cache:families -",
            "ZADD %cache:expiries 1 -",
            "ZRANGEBYSCORE %cache:expiries 0 1",
            "ZREM %cache:expiries -",
            "HINCRBY %cache:cover - 1",
            "HMGET %cache:cover -",
            "PUBLISH %internal:cache:own -",
            "PUBLISH %internal:cache:gone -",
            "SUBSCRIBE %internal:cache:own",
            "SUBSCRIBE %internal:cache:gone",
            "SUBSCRIBE %internal:cache:here:-",
        ],
    ),
    (
        Feature::Presence,
        &[
            "SET %presence -",
            "GET %presence",
            "PTTL %presence",
            "DEL %presence",
            "HSET %members - -",
            "HGET %members -",
            "HKEYS %members",
            "HGETALL %members",
            "HDEL %members -",
            "PEXPIRE %members 1",
            "EVALSHA - 1 %members",
            "SCRIPT LOAD -",
            "PUBLISH %internal:presence:in:- -",
            "SUBSCRIBE %internal:presence:in:-",
        ],
    ),
    (
        Feature::Operate,
        &[
            "INFO",
            "PUBSUB CHANNELS",
            "PUBSUB NUMSUB %channel",
            "XLEN %stream:stream",
            "XINFO GROUPS %stream:stream",
            "XINFO CONSUMERS %stream:stream %group",
            "XPENDING %stream:stream %group - + 1",
            "ZMSCORE %cache:expiries -",
            "HDEL %registry -",
            "SCAN 0",
        ],
    ),
];

impl Redis {
    pub(crate) async fn rights(&self, scope: &Scope) -> Result<Vec<Tried>> {
        let (connection, _watch) = self.link.dedicated(&scope.stream.key(&self.namespace, "stream")).await?;
        let ask = async |command: &Cmd| command.query_async::<Value>(&mut connection.clone()).await;
        let multi = timeout(self.command_timeout, ask(&cmd("MULTI"))).await.map_err(|_| self.silent())?;
        // Without it they would be carried out.
        multi.map_err(|error| {
            describe(error, &self.endpoint).context("look at rights, which takes a transaction (MULTI)")
        })?;
        let mut tried = Vec::new();
        for (feature, lines) in COMMANDS {
            let commands: Vec<Vec<String>> = lines.iter().map(|line| self.words(line, scope)).collect();
            let queued = join_all(commands.iter().map(async |words| {
                let mut command = cmd(&words[0]);
                command.arg(&words[1..]);
                ask(&command).await
            }));
            let queued = timeout(self.command_timeout, queued).await.map_err(|_| self.silent())?;
            for (words, answer) in commands.into_iter().zip(queued) {
                let refusal = match answer {
                    Ok(_) => None,
                    Err(error) => {
                        let (code, detail) = first_refusal(&error);
                        // A pattern has to be allowed as it is written, and nobody says which one it will be.
                        let is_pattern = words[0].starts_with('P') && words[0].ends_with("SUBSCRIBE");
                        if is_pattern && !detail.contains("command") {
                            None
                        } else if code == "NOPERM" {
                            let rule = self.rule(&words, &detail, scope);
                            Some(Refusal { reason: detail, rule: Some(rule) })
                        } else if detail.contains("unknown") {
                            Some(Refusal { reason: detail, rule: None })
                        } else if error.is_unrecoverable_error() {
                            return Err(describe(error, &self.endpoint));
                        } else {
                            // On a cluster, that the key is elsewhere; on a replica, that it takes no writes.
                            None
                        }
                    }
                };
                tried.push(Tried { feature: *feature, command: shown(&words), refusal });
            }
        }
        // The connection is dropped, and the transaction with it.
        Ok(tried)
    }

    fn silent(&self) -> Error {
        let text = format!("redis at {} did not answer within {:?}", self.endpoint, self.command_timeout);
        Error::new(ErrorKind::Timeout, text)
    }

    fn words(&self, line: &str, scope: &Scope) -> Vec<String> {
        let stream = scope.stream.key(&self.namespace, "");
        let (namespace, prefix) = (&self.namespace, &self.channel_prefix);
        let filled = |word: &str| {
            word.replace("%stream:", &stream)
                .replace("%group", &scope.group)
                .replace("%registry", &format!("{namespace}:streams"))
                .replace("%since", &format!("{namespace}:since:{}:{}", scope.group, scope.channel))
                .replace("%cache:", &format!("{namespace}:{{cache}}:"))
                .replace("%internal:", &format!("{prefix}{namespace}:"))
                .replace("%presence", &format!("{namespace}:presence:node:-"))
                .replace("%members", &format!("{namespace}:{{{}}}:presence", scope.channel))
                .replace("%channel", &scope.channel)
                .replace("%value", &scope.value)
                .replace("%lease", &scope.lease)
        };
        line.split(' ').map(filled).collect()
    }

    /// What an ACL has to say so that this command is allowed. First the command is looked at, then keys and channels.
    fn rule(&self, words: &[String], refusal: &str, scope: &Scope) -> String {
        if refusal.contains("command") {
            return format!("+{}", shown(words).to_ascii_lowercase().replace(' ', "|"));
        }
        if refusal.contains("channel") {
            let internal = format!("{}{}:", self.channel_prefix, self.namespace);
            let channel = words.iter().skip(1).find(|word| word.starts_with(&internal));
            return match channel.and_then(|channel| channel.strip_prefix(&internal)?.split_once(':')) {
                Some((what, _)) => format!("&{internal}{what}:*"),
                None => format!("&{}", scope.channel),
            };
        }
        if words.contains(&scope.value) {
            format!("~{}", scope.values)
        } else {
            format!("~{}:*", self.namespace)
        }
    }
}

/// The command, with its subcommand if it has some.
fn shown(words: &[String]) -> String {
    match words[0].as_str() {
        "XINFO" | "XGROUP" | "SCRIPT" | "PUBSUB" => format!("{} {}", words[0], words[1]),
        command => command.to_owned(),
    }
}
