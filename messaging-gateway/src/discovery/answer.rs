//! What a service says of itself, and what of that is believed: pure functions on untrusted bytes.

use std::collections::{BTreeMap, BTreeSet};

use messaging_core::Pattern;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::service::{RemoteEntity, RemoteFilter, RemoteService, is_plain, quoted};
use crate::descriptor::{Operator, SlowPolicy};
use crate::schema::PROTOCOL;

/// How deep a schema may be nested; ours has a depth of five.
const DEEPEST: usize = 16;
const MOST_ENTITIES: usize = 1_000;
const MOST_CHANNELS: usize = 32;
const MOST_FILTERS: usize = 64;
const LONGEST_NAME: usize = 128;
const LONGEST_CHANNEL: usize = 512;

/// What has been accepted of a service's schema, and why the rest has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) entities: Vec<RemoteEntity>,
    pub(super) refused: Vec<String>,
}

#[derive(Deserialize)]
struct Said<'a> {
    protocol: u32,
    service: String,
    #[serde(borrow)]
    entities: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct SaidEntity {
    entity: String,
    channels: Vec<String>,
    #[serde(default)]
    filters: BTreeMap<String, Vec<Operator>>,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    send: bool,
    #[serde(default)]
    presence: bool,
    #[serde(default)]
    slow: SlowPolicy,
}

/// Reads a schema. One entity that is not acceptable does not take the others with it.
pub(super) fn read(service: &RemoteService, body: &[u8]) -> Result<Answer, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the schema is not UTF-8 text".to_owned())?;
    if depth(text) > DEEPEST {
        return Err(format!("the schema is nested deeper than {DEEPEST} levels"));
    }
    let said: Said<'_> = serde_json::from_str(text)
        .map_err(|error| format!("the schema cannot be read: {}", shown(&error)))?;
    if said.protocol != PROTOCOL {
        return Err(format!("the schema is of protocol {}; this gateway knows {PROTOCOL}", said.protocol));
    }
    if said.service != service.name() {
        return Err(format!(
            "the service there calls itself {}; is the address right?",
            quoted(&said.service)
        ));
    }
    if said.entities.len() > MOST_ENTITIES {
        return Err(format!("the schema has {} entities; the most are {MOST_ENTITIES}", said.entities.len()));
    }
    let mut answer = Answer::default();
    for (index, entity) in said.entities.into_iter().enumerate() {
        match serde_json::from_str(entity.get()) {
            Ok(entity) => match check(service, entity) {
                Ok(entity) => answer.entities.push(entity),
                Err(reason) => answer.refused.push(reason),
            },
            Err(error) => answer.refused.push(format!("entity number {}: {}", index + 1, shown(&error))),
        }
    }
    refuse_twins(&mut answer);
    answer.entities.sort_by(|a, b| a.entity.cmp(&b.entity));
    Ok(answer)
}

fn check(service: &RemoteService, said: SaidEntity) -> Result<RemoteEntity, String> {
    let name = said.entity;
    let refuse = |reason: String| Err(format!("entity {}: {reason}", quoted(&name)));
    if !is_plain(&name, LONGEST_NAME) {
        return refuse("the name is not made of letters, digits, `_`, `-` and `.`".to_owned());
    }
    if said.channels.is_empty() || said.channels.len() > MOST_CHANNELS {
        return refuse(format!("it has {} channels; 1 to {MOST_CHANNELS} are possible", said.channels.len()));
    }
    let mut channels = Vec::with_capacity(said.channels.len());
    for channel in &said.channels {
        match read_channel(service, channel) {
            Ok(pattern) => channels.push(pattern),
            Err(reason) => return refuse(format!("channel {}: {reason}", quoted(channel))),
        }
    }
    if said.filters.len() > MOST_FILTERS {
        return refuse(format!("it has {} filters; the most are {MOST_FILTERS}", said.filters.len()));
    }
    if let Some(field) = said.filters.keys().chain(&said.tenant).find(|field| !is_field(field)) {
        return refuse(format!("{} is not a field of a payload", quoted(field)));
    }
    let filters = said.filters.into_iter().map(|(field, mut operators)| {
        let mut seen = BTreeSet::new();
        operators.retain(|operator| seen.insert(*operator as u8));
        RemoteFilter { field, operators }
    });
    Ok(RemoteEntity {
        service: service.name().into(),
        channels,
        filters: filters.collect(),
        tenant: said.tenant,
        send: said.send,
        presence: said.presence,
        slow: said.slow,
        entity: name,
    })
}

fn read_channel(service: &RemoteService, channel: &str) -> Result<Pattern, String> {
    if channel.len() > LONGEST_CHANNEL || !channel.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("it is not at most {LONGEST_CHANNEL} characters of plain ASCII"));
    }
    // A placeholder cannot stand in for a part of a prefix: prefixes have no braces.
    if !service.prefixes().iter().any(|prefix| channel.starts_with(prefix.as_str())) {
        return Err(format!("it begins with none of the service's prefixes {:?}", service.prefixes()));
    }
    match Pattern::parse(channel) {
        Ok(Pattern::Glob(_)) => Err("it is a glob; an entity has channels and templates".to_owned()),
        Ok(pattern) => Ok(pattern),
        Err(_) => Err("it is neither a channel nor a template".to_owned()),
    }
}

/// Nobody can tell which of two declarations is meant.
fn refuse_twins(answer: &mut Answer) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for entity in &answer.entities {
        *counts.entry(&entity.entity).or_default() += 1;
    }
    let twins: BTreeSet<String> =
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect();
    answer.entities.retain(|entity| !twins.contains(&entity.entity));
    answer.refused.extend(twins.iter().map(|name| format!("entity {}: it is declared twice", quoted(name))));
}

/// A dotted path into a payload.
fn is_field(field: &str) -> bool {
    !field.is_empty()
        && field.len() <= LONGEST_NAME
        && field.split('.').all(|name| !name.is_empty())
        && !field.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// How deep a JSON text is nested. It needs no valid JSON: what is not valid is refused by whoever reads it.
fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What serde says, which may quote what it read.
fn shown(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check_schema(schema: &str, expected: Expect) {
        let service = RemoteService::new("events", "http://127.0.0.1:1", ["camera."]).unwrap();
        let text = match read(&service, schema.as_bytes()) {
            Err(error) => format!("error: {error}\n"),
            Ok(answer) => {
                let accepted = answer.entities.iter().map(|entity| {
                    let channels: Vec<_> = entity.channels.iter().map(Pattern::as_str).collect();
                    format!("{} {channels:?} {:?} {:?}\n", entity.entity, entity.filters, entity.tenant)
                });
                accepted.chain(answer.refused.iter().map(|reason| format!("refused: {reason}\n"))).collect()
            }
        };
        expected.assert_eq(&text);
    }

    fn check_entities(entities: &str, expected: Expect) {
        check_schema(&format!(r#"{{"protocol":1,"service":"events","entities":{entities}}}"#), expected);
    }

    #[test]
    fn what_is_right_is_believed_and_unknown_fields_are_passed_over() {
        check_entities(
            r#"[{"entity":"B","channels":["camera.b:{id}"],"filters":{"id":["eq","in","eq"]},"tenant":"org.id","new":[1]},
                {"entity":"A","channels":["camera.a","camera.a.{rest*}"],"public":true}]"#,
            expect![[r#"
                A ["camera.a", "camera.a.{rest*}"] [] None
                B ["camera.b:{id}"] [RemoteFilter { field: "id", operators: [Eq, In] }] Some("org.id")
            "#]],
        );
    }

    #[test]
    fn what_is_somebody_elses_is_refused_and_the_rest_stays() {
        check_entities(
            r#"[{"entity":"Orders","channels":["camera.ok","orders.created"]},
                {"entity":"Any","channels":["{all}.created"]},
                {"entity":"All","channels":["camera.*"]},
                {"entity":"Good","channels":["camera.good"]}]"#,
            expect![[r#"
                Good ["camera.good"] [] None
                refused: entity "Orders": channel "orders.created": it begins with none of the service's prefixes ["camera."]
                refused: entity "Any": channel "{all}.created": it begins with none of the service's prefixes ["camera."]
                refused: entity "All": channel "camera.*": it is a glob; an entity has channels and templates
            "#]],
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check_entities(
            r#"[{"entity":"a b","channels":["camera.a"]}, {"entity":"","channels":["camera.a"]},
                {"entity":"None","channels":[]}, {"entity":"Space","channels":["camera. a"]},
                {"entity":"Brace","channels":["camera.{a"]}, {"entity":"Uml","channels":["camera.ä"]},
                {"entity":"Field","channels":["camera.a"],"filters":{"a..b":["eq"]}},
                {"entity":"Tenant","channels":["camera.a"],"tenant":""},
                {"entity":"Op","channels":["camera.a"],"filters":{"a":["like"]}}, 7,
                {"entity":"Twin","channels":["camera.a"]}, {"entity":"Twin","channels":["camera.b"]}]"#,
            expect![[r#"
                refused: entity "a b": the name is not made of letters, digits, `_`, `-` and `.`
                refused: entity "": the name is not made of letters, digits, `_`, `-` and `.`
                refused: entity "None": it has 0 channels; 1 to 32 are possible
                refused: entity "Space": channel "camera. a": it is not at most 512 characters of plain ASCII
                refused: entity "Brace": channel "camera.{a": it is neither a channel nor a template
                refused: entity "Uml": channel "camera.ä": it is not at most 512 characters of plain ASCII
                refused: entity "Field": "a..b" is not a field of a payload
                refused: entity "Tenant": "" is not a field of a payload
                refused: entity number 9: unknown variant `like`, expected `eq` or `in` at line 1 column 61
                refused: entity number 10: invalid type: integer `7`, expected struct SaidEntity at line 1 column 1
                refused: entity "Twin": it is declared twice
            "#]],
        );
    }

    #[test]
    fn another_document_is_an_error() {
        check_schema(
            "",
            expect![[r#"
            error: the schema cannot be read: EOF while parsing a value at line 1 column 0
        "#]],
        );
        check_schema(
            r#"{"protocol":2,"service":"events","entities":[]}"#,
            expect![[r#"
            error: the schema is of protocol 2; this gateway knows 1
        "#]],
        );
        check_schema(
            r#"{"protocol":1,"service":"billing\n","entities":[]}"#,
            expect![[r#"
            error: the service there calls itself "billing\n"; is the address right?
        "#]],
        );
        check_schema(
            &format!(r#"{{"x":{}{}}}"#, "[".repeat(20), "]".repeat(20)),
            expect![[r#"
            error: the schema is nested deeper than 16 levels
        "#]],
        );
        let service = RemoteService::new("events", "http://127.0.0.1:1", ["camera."]).unwrap();
        assert_eq!(read(&service, b"{\"\xff\":1}").unwrap_err(), "the schema is not UTF-8 text");
    }

    #[test]
    fn brackets_in_strings_are_no_depth() {
        assert_eq!(depth(r#"{"a":"[[[\"[[","b":[1]}"#), 2);
        assert_eq!(depth("]]]["), 1);
    }
}
