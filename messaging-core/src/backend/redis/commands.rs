//! What `Link` hands out to run commands on: the connection to one server, or the way to the right node of a cluster.
//! Also which key a command is about.

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Arg, Cmd, Pipeline, RedisFuture, Value};

use super::cluster::Routed;

#[derive(Clone)]
pub(super) enum Commands {
    One(MultiplexedConnection),
    Cluster(Routed),
}

impl ConnectionLike for Commands {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(routed) => Box::pin(routed.command(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(routed) => Box::pin(routed.pipeline(pipeline, offset, count)),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(_) => 0,
        }
    }
}

/// The first key of a command; `None` if it is about no key. Commands with several keys are expected to keep them in one
/// slot.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let arguments = || {
        command.args_iter().map(|argument| match argument {
            Arg::Simple(text) => text,
            _ => b"",
        })
    };
    let name = arguments().next()?.to_ascii_uppercase();
    match &name[..] {
        b"PING" | b"SCAN" | b"INFO" | b"PUBSUB" | b"SCRIPT" | b"CLIENT" | b"CONFIG" | b"TIME" | b"ROLE"
        | b"PUBLISH" | b"CLUSTER" | b"WAIT" | b"DBSIZE" | b"ACL" => None,
        b"EVAL" | b"EVALSHA" => arguments().nth(2).filter(|keys| *keys != b"0").and(arguments().nth(3)),
        b"XGROUP" | b"XINFO" | b"OBJECT" | b"MEMORY" => arguments().nth(2),
        b"XREAD" | b"XREADGROUP" => {
            // A group, or a consumer, may have that name too.
            let names = if name.len() > 5 { 4 } else { 1 };
            let mut rest = arguments().skip(names);
            rest.find(|argument| argument.eq_ignore_ascii_case(b"STREAMS")).and_then(|_| rest.next())
        }
        _ => arguments().nth(1),
    }
}

#[cfg(test)]
mod tests {
    use redis::cmd;

    use super::*;

    #[test]
    fn a_command_is_about_its_first_key() {
        for (line, key) in [
            ("MGET value lease", Some("value")),
            ("set value 1 PX 5", Some("value")),
            ("EVALSHA abc 2 value lease token", Some("value")),
            ("EVAL script 0 argument", None),
            ("XADD stream * field value", Some("stream")),
            ("XGROUP CREATE stream group $", Some("stream")),
            ("XREADGROUP GROUP streams me COUNT 1 STREAMS stream >", Some("stream")),
            ("SPUBLISH channel payload", Some("channel")),
            ("SCRIPT LOAD text", None),
            ("PING", None),
        ] {
            let mut words = line.split(' ');
            let mut command = cmd(words.next().unwrap());
            words.for_each(|word| _ = command.arg(word));
            assert_eq!(key_of(&command), key.map(str::as_bytes), "{line}");
        }
    }
}
