//! What this process publishes, listens to and offers, as an AsyncAPI 3.0 document
//! (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>).

mod names;
mod payload;

use std::collections::BTreeMap;

use messaging_core::{DescribedModel, Description, Pattern, describe};
use serde_json::{Map, Value, json};

use self::names::Names;
use crate::descriptor::SubscriptionDescriptor;
use crate::schema::descriptors;

/// What this process publishes, listens to and offers, as an AsyncAPI 3.0 document under this title and version: what
/// `/asyncapi.json` of an [`internal_router`](crate::internal_router) answers, for a program that prints it or a build that
/// keeps it. `send` means, as AsyncAPI wants it, that this process sends.
///
/// Payloads of models that implement `schemars::JsonSchema` have their schema, with the feature `schema` of
/// `messaging-core`.
///
/// ```
/// use messaging_core::event_config;
///
/// #[event_config(publish = { create = "camera.created:{complex_id}" })]
/// #[derive(serde::Serialize)]
/// pub struct Camera {
///     complex_id: u64,
/// }
///
/// let document = messaging_gateway::asyncapi("access-control", "1.4.0");
/// assert_eq!(document["info"]["title"], "access-control");
/// let channel = &document["channels"]["camera.created.complex_id"];
/// assert_eq!(channel["address"], "camera.created:{complex_id}");
/// ```
#[must_use]
pub fn asyncapi(service: &str, version: &str) -> Value {
    of(service, version, &describe(), &descriptors())
}

fn of(
    service: &str,
    version: &str,
    description: &Description,
    subscriptions: &[&SubscriptionDescriptor],
) -> Value {
    let mut document = Document::default();
    for model in &description.models {
        document.add_model(model);
    }
    for channel in &description.channels {
        document.channel(channel.template);
    }
    for handler in &description.handlers {
        for channel in handler.channels {
            let mut operation = document.operation("receive", channel);
            operation.insert("title".into(), handler.id.into());
            operation.insert("tags".into(), json!([{ "name": "redis" }]));
            document.add(format!("{}.{channel}", handler.id), operation);
        }
    }
    for subscription in subscriptions {
        document.add_subscription(subscription);
    }
    document.finish(service, version)
}

#[derive(Default)]
struct Document {
    /// By what they are called in the document.
    channels: BTreeMap<String, Value>,
    operations: BTreeMap<String, Value>,
    messages: BTreeMap<String, Value>,
    schemas: BTreeMap<String, Value>,
    channel_names: Names,
    operation_names: Names,
    message_names: Names,
}

impl Document {
    fn add_model(&mut self, model: &DescribedModel) {
        let name = self.message_names.of(model.id);
        let (payload, schemas) = payload::of_model(model, &name);
        self.schemas.extend(schemas);
        let message = json!({ "name": model.id, "contentType": "application/json", "payload": payload });
        self.messages.insert(name.clone(), message);
        for (op, template) in &model.publishes {
            let reference = self.message_of(template, &name);
            let mut operation = self.operation("send", template);
            operation.insert("title".into(), format!("{} {op}", model.id).into());
            operation.insert("messages".into(), json!([reference]));
            let mut tags = vec![json!({ "name": "redis" })];
            if model.durable {
                tags.push(json!({ "name": "durable" }));
            }
            if model.sharded {
                tags.push(json!({ "name": "sharded" }));
            }
            operation.insert("tags".into(), tags.into());
            self.add(format!("{}.{op}.{template}", model.id), operation);
        }
    }

    fn add_subscription(&mut self, subscription: &SubscriptionDescriptor) {
        let entity = subscription.entity;
        for template in subscription.channels {
            let mut operation = self.operation("send", template);
            operation.insert("title".into(), format!("{entity} to subscribers").into());
            operation.insert("tags".into(), json!([{ "name": "gateway" }]));
            self.add(format!("{entity}.subscribe.{template}"), operation);
            if subscription.send {
                self.add_sending(entity, template);
            }
        }
    }

    /// What clients send, and what becomes of it.
    fn add_sending(&mut self, entity: &str, template: &str) {
        let (data, sent) = (self.message_names.of("gateway data"), self.message_names.of("gateway sent"));
        self.messages.entry(data.clone()).or_insert_with(|| {
            json!({
                "title": "What a client sends",
                "contentType": "application/json",
                "payload": { "description": "Any JSON." },
            })
        });
        self.messages.entry(sent.clone()).or_insert_with(|| {
            json!({
                "title": "What a client has sent, as subscribers get it",
                "contentType": "application/json",
                "payload": {
                    "type": "object",
                    "required": ["sender", "data"],
                    "properties": {
                        "sender": {
                            "type": "object",
                            "properties": { "user": { "type": "string" }, "client": { "type": "string" }, "info": {} },
                        },
                        "data": { "description": "Any JSON." },
                    },
                },
            })
        });
        self.message_of(template, &sent);
        let reference = self.message_of(template, &data);
        let mut operation = self.operation("receive", template);
        operation.insert("title".into(), format!("{entity} from clients").into());
        operation.insert("messages".into(), json!([reference]));
        operation.insert("tags".into(), json!([{ "name": "gateway" }]));
        self.add(format!("{entity}.send.{template}"), operation);
    }

    /// The name of the channel with this address.
    fn channel(&mut self, template: &str) -> String {
        let name = self.channel_names.of(template);
        self.channels.entry(name.clone()).or_insert_with(|| channel(template));
        name
    }

    /// Says that a message comes on a channel; returns the reference that operations need.
    fn message_of(&mut self, template: &str, message: &str) -> Value {
        let channel = self.channel(template);
        let messages = self.channels.get_mut(&channel).and_then(Value::as_object_mut);
        let messages = messages.map(|channel| channel.entry("messages").or_insert_with(|| json!({})));
        if let Some(messages) = messages.and_then(Value::as_object_mut) {
            messages.insert(message.to_owned(), reference("components/messages", message));
        }
        reference(&format!("channels/{channel}/messages"), message)
    }

    fn operation(&mut self, action: &str, template: &str) -> Map<String, Value> {
        let channel = self.channel(template);
        Map::from_iter([
            ("action".to_owned(), action.into()),
            ("channel".to_owned(), reference("channels", &channel)),
        ])
    }

    fn add(&mut self, name: String, operation: Map<String, Value>) {
        self.operations.insert(self.operation_names.of(&name), operation.into());
    }

    fn finish(self, service: &str, version: &str) -> Value {
        json!({
            "asyncapi": "3.0.0",
            "info": { "title": service, "version": version },
            "defaultContentType": "application/json",
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": self.messages, "schemas": self.schemas },
        })
    }
}

/// All names in references consist of characters that a JSON pointer needs no escapes for.
fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

fn channel(template: &str) -> Value {
    match Pattern::parse(template) {
        Ok(Pattern::Template(parsed)) => {
            let (mut names, mut address, mut parameters) = (Names::default(), String::new(), Map::new());
            let mut rest = template;
            for name in parsed.names() {
                let parameter = names.of(name);
                let (literal, after) = rest.split_once('{').unwrap_or((rest, ""));
                let (inside, after) = after.split_once('}').unwrap_or((after, ""));
                rest = after;
                address.push_str(&format!("{literal}{{{parameter}}}"));
                let description = if inside.ends_with('*') {
                    "The remainder of the channel; it may contain separators."
                } else {
                    "One segment, or a part of one, without separators."
                };
                parameters.insert(parameter, json!({ "description": description }));
            }
            address.push_str(rest);
            json!({ "address": address, "parameters": parameters })
        }
        Ok(Pattern::Exact(_)) => json!({ "address": template }),
        // An address is one channel; there is no way to write a glob.
        Ok(Pattern::Glob(_)) | Err(_) => json!({
            "address": null,
            "description": format!("All channels that the pattern `{template}` of Redis matches."),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use messaging_core::{event_config, subscribe};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
    struct Lens {
        zoom: f64,
        spare: Option<Box<Lens>>,
    }

    #[event_config(
        publish = { create = "lab.created", update = ["lab.updated", "lab.updated:{id}"] },
        durable = { max_age = "1h" },
    )]
    #[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
    struct Whole {
        id: i64,
        lens: Lens,
    }

    #[event_config(publish = { create = "lab.part.created" }, payload_fields = [id, lens])]
    #[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
    struct Part {
        id: i64,
        lens: Lens,
        secret: String,
    }

    #[event_config(
        publish = { delete = "lab.wrapped:{größe}" },
        envelope = { resource = "wrapped", id = id, metadata = [lens] },
    )]
    #[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
    struct Wrapped {
        id: i64,
        größe: i64,
        lens: Lens,
    }

    #[event_config(publish = { create = "lab.plain" })]
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Plain {
        id: i64,
    }

    #[event_config(publish = { create = "lab.tree" })]
    #[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
    struct Tree {
        id: i64,
        branches: Vec<Tree>,
    }

    #[subscribe("lab.*")]
    async fn listens(_raw: messaging_core::Raw) {}

    #[subscribe("lab.rest.{rest*}")]
    async fn listens_to_the_rest(rest: String, _raw: messaging_core::Raw) {
        drop(rest);
    }

    static CHAT: SubscriptionDescriptor = SubscriptionDescriptor {
        id: "chat",
        entity: "Chat",
        channels: &["lab.chat:{room}", "lab.created"],
        filters: &[],
        tenant: None,
        access: crate::DeclaredAccess::Public,
        send: true,
        presence: false,
        slow: crate::SlowPolicy::Disconnect,
        location: messaging_core::Location { file: "f", line: 1 },
    };

    fn sample() -> Value {
        of("lab", "1.2.3", &describe(), &[&CHAT])
    }

    /// Follows every reference, as the specification allows it: the pointer leads somewhere.
    fn follow(document: &Value, within: &Value, seen: &mut BTreeSet<String>) {
        match within {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("within the document");
                    assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    seen.insert(reference.to_owned());
                }
                members.values().for_each(|value| follow(document, value, seen));
            }
            Value::Array(items) => items.iter().for_each(|value| follow(document, value, seen)),
            _ => {}
        }
    }

    #[test]
    fn all_references_lead_somewhere() {
        let document = sample();
        let mut seen = BTreeSet::new();
        follow(&document, &document, &mut seen);
        for name in ["Whole.Lens", "Part.Lens", "Wrapped.Lens", "Tree"] {
            let end = format!("/schemas/messaging_gateway.asyncapi.tests.{name}");
            assert!(seen.iter().any(|reference| reference.ends_with(&end)), "{name} in {seen:?}");
        }
        assert!(!document.to_string().contains("secret"), "what no event carries is not shown");
        // For a check by hand with another implementation.
        if let Ok(path) = std::env::var("ASYNCAPI_OUT") {
            std::fs::write(path, serde_json::to_string_pretty(&document).unwrap()).unwrap();
        }
    }

    #[test]
    fn names_fit_the_specification() {
        let document = sample();
        for place in ["/channels", "/operations", "/components/messages", "/components/schemas"] {
            let members = document.pointer(place).and_then(Value::as_object).unwrap();
            assert!(!members.is_empty(), "{place}");
            for name in members.keys() {
                let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
                assert!(fits, "{place}/{name}");
            }
        }
        for channel in document["channels"].as_object().unwrap().values() {
            let address = channel["address"].as_str().unwrap_or_default();
            for name in channel["parameters"].as_object().into_iter().flat_map(Map::keys) {
                assert!(address.contains(&format!("{{{name}}}")), "{name} of {address}");
            }
        }
    }

    #[test]
    fn a_model_is_sent_with_its_schema() {
        let document = sample();
        let channels = document["channels"].as_object().unwrap();
        let at = |address: &str| channels.values().find(|channel| channel["address"] == address).unwrap();
        assert_eq!(at("lab.updated:{id}")["parameters"].as_object().unwrap().len(), 1);
        assert_eq!(at("lab.wrapped:{gr__e}")["parameters"].as_object().unwrap().len(), 1);
        assert_eq!(at("lab.rest.{rest}")["parameters"].as_object().unwrap().len(), 1);
        assert!(at("lab.plain")["messages"].is_object());
        assert!(channels.values().any(|channel| channel["address"].is_null()), "that of the glob");

        let operations = document["operations"].as_object().unwrap();
        let of = |title: &str| {
            let operation = operations.values().find(|operation| operation["title"] == title);
            operation.unwrap_or_else(|| panic!("{title}"))
        };
        let update = of(concat!(module_path!(), "::Whole update"));
        assert_eq!(update["action"], "send");
        assert_eq!(update["tags"], json!([{ "name": "redis" }, { "name": "durable" }]));
        assert_eq!(of(concat!(module_path!(), "::listens"))["action"], "receive");
        assert_eq!(of("Chat to subscribers")["action"], "send");
        assert_eq!(of("Chat from clients")["action"], "receive");
    }
}
