//! What stands in `#[event_config(…)]`, read and checked against the struct.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::LitStr;

use super::durable::Durable;
use super::model::{Field, Model};
use super::table::Table;
use crate::descriptor::{Identity, Runtime};
use crate::mistakes::Mistakes;
use crate::operation::Operation;
use crate::options::{Entry, Options};
use crate::template::{Key, Pattern};
use crate::value::{Value, ValueKind, split};

const KNOWN: &[&str] = &[
    "publish",
    "payload_fields",
    "envelope",
    "previous",
    "cache",
    "durable",
    "sharded",
    "table",
    "key",
    "version",
    "id",
    "crate",
];

/// Those that may stand without a value.
const BARE: &[&str] = &["durable", "sharded"];

/// One `#[event_config]`.
pub(super) struct Config<'m> {
    pub(super) runtime: Runtime,
    pub(super) identity: Identity,
    pub(super) publish: Vec<(Operation, Vec<LitStr>)>,
    pub(super) payload: Payload<'m>,
    /// Fields whose old values an update carries; `None` without the option.
    pub(super) previous: Option<Vec<&'m Field>>,
    pub(super) cache: Option<Cache<'m>>,
    pub(super) durable: Option<Durable<'m>>,
    pub(super) sharded: bool,
    pub(super) table: Option<Table<'m>>,
    /// Fields whose values fill placeholders, or are a key.
    pub(super) placeholders: Vec<&'m Field>,
}

pub(super) enum Payload<'m> {
    Whole,
    Fields(Vec<&'m Field>),
    Envelope(Envelope<'m>),
}

pub(super) struct Envelope<'m> {
    pub(super) resource: LitStr,
    pub(super) id: &'m Field,
    pub(super) tenant: Option<&'m Field>,
    pub(super) metadata: Vec<&'m Field>,
}

pub(super) struct Cache<'m> {
    pub(super) key: LitStr,
    pub(super) ttl: Duration,
    pub(super) fields: Option<Vec<&'m Field>>,
}

impl<'m> Config<'m> {
    /// `None` only after a mistake. An option with a mistake in it is taken as not given.
    pub(super) fn read(
        arguments: TokenStream,
        model: Option<&'m Model>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let segments = split(arguments, mistakes);
        let options = Options::with_bare_words(segments, KNOWN, BARE, mistakes);
        let runtime = Runtime::of(&options, mistakes);
        let identity = Identity::of(&options, mistakes);
        if !options.has("publish") && !options.has("table") {
            let message = "`publish` is missing; add `publish = { create = \"…\", update = \"…\", delete = \
                \"…\" }`, or those of them that you want";
            mistakes.add_at(Span::call_site(), message);
        }
        let model = model?;
        let mut reader = Reader { model, placeholders: Vec::new(), mistakes };
        let publish = options.get("publish").map_or(Some(Vec::new()), |entry| reader.publish(entry));
        let payload = reader.payload(&options);
        let previous = options.get("previous").map(|entry| reader.previous(entry, payload.as_ref()));
        let cache = options.get("cache").and_then(|entry| reader.cache(entry));
        let durable = reader.durable(&options);
        let table = Table::read(&options, model, reader.mistakes);
        if let Some(table) = &table {
            reader.note(table.key);
        }
        let placeholders = reader.placeholders;
        let sharded = options.flag("sharded", mistakes);
        Some(Self {
            runtime,
            identity,
            publish: publish?,
            payload: payload?,
            previous,
            cache,
            durable,
            sharded,
            table,
            placeholders,
        })
    }
}

struct Reader<'m, 'r> {
    model: &'m Model,
    placeholders: Vec<&'m Field>,
    mistakes: &'r mut Mistakes,
}

impl<'m> Reader<'m, '_> {
    fn publish(&mut self, entry: &Entry) -> Option<Vec<(Operation, Vec<LitStr>)>> {
        let operations = Options::of_map(
            &entry.value,
            Operation::NAMES,
            "{ create = \"camera.created\" }",
            self.mistakes,
        )?;
        if operations.is_empty() {
            let message =
                "nothing is published; name at least one operation, such as `create = \"camera.created\"`";
            self.mistakes.add(&entry.value, message);
        }
        let mut publish = Vec::new();
        for entry in operations.entries() {
            let operation = Operation::of(&entry.name.text)?;
            let Some(texts) = self.mistakes.keep(entry.value.channels()) else { continue };
            for (position, text) in texts.iter().enumerate() {
                if texts[..position].iter().any(|earlier| earlier.value() == text.value()) {
                    let message = format!("{:?} is in the list twice; remove one of them", text.value());
                    self.mistakes.add(text, message);
                }
                if let Some(pattern) = self.mistakes.keep(Pattern::of_publisher(text)) {
                    self.fill(text, &pattern.names);
                }
            }
            publish.push((operation, texts));
        }
        Some(publish)
    }

    /// Notes the fields that fill these placeholders.
    fn fill(&mut self, text: &LitStr, names: &[String]) {
        for name in names {
            match self.model.field(name) {
                Some(field) => self.note(field),
                None => {
                    let message = format!(
                        "`{{{name}}}` names no field of `{}`{}",
                        self.model.item.ident,
                        self.model.suggestion(name)
                    );
                    self.mistakes.add(text, message);
                }
            }
        }
    }

    /// Notes a field whose value is asked for by its name.
    fn note(&mut self, field: &'m Field) {
        if self.placeholders.iter().all(|earlier| earlier.name != field.name) {
            self.placeholders.push(field);
        }
    }

    fn durable(&mut self, options: &Options) -> Option<Durable<'m>> {
        let durable = Durable::read(options, self.model, self.mistakes)?;
        if let Some(key) = durable.key {
            self.note(key);
        }
        Some(durable)
    }

    fn payload(&mut self, options: &Options) -> Option<Payload<'m>> {
        let fields = options.get("payload_fields");
        let envelope = options.get("envelope");
        if let (Some(fields), Some(envelope)) = (fields, envelope) {
            let message = "an envelope has a form of its own; with it, write `metadata = […]` inside it \
                instead of `payload_fields`";
            self.mistakes.add(&fields.name, message);
            return self.envelope(envelope).map(Payload::Envelope);
        }
        if let Some(entry) = fields {
            for meta in &self.model.container.foreign {
                let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
                let message = format!(
                    "`payload_fields` takes fields as they stand in the struct, and with `#[serde({name})]` \
                        the struct's JSON is not made of its fields; remove one of the two"
                );
                self.mistakes.add(meta, message);
            }
            return Some(Payload::Fields(self.fields(entry)));
        }
        match envelope {
            Some(entry) => self.envelope(entry).map(Payload::Envelope),
            None => Some(Payload::Whole),
        }
    }

    /// A list of fields with at least one.
    fn fields(&mut self, entry: &Entry) -> Vec<&'m Field> {
        let Entry { name, value } = entry;
        if matches!(&value.kind, ValueKind::List(items) if items.is_empty()) {
            let message = format!("this list is empty; name the fields, or leave `{}` out", name.text);
            self.mistakes.add(value, message);
        }
        self.model.written(&name.text, value, self.mistakes)
    }

    fn envelope(&mut self, entry: &Entry) -> Option<Envelope<'m>> {
        let model = self.model;
        let entries = Options::of_map(
            &entry.value,
            &["resource", "id", "tenant", "metadata"],
            "{ resource = \"camera\", id = id }",
            self.mistakes,
        )?;
        let resource = entries.required(
            "resource",
            "the kind of thing it is: `resource = \"camera\"`",
            self.mistakes,
            |value| {
                let resource = value.text()?;
                if resource.value().is_empty() {
                    return Err(value.error("the resource has no name; write its kind, such as \"camera\""));
                }
                Ok(resource)
            },
        );
        let id = entries.required(
            "id",
            "the field that says which one it is: `id = id`",
            self.mistakes,
            |value| model.named(value),
        );
        let tenant = entries.optional("tenant", self.mistakes, |value| model.named(value));
        let metadata = entries.get("metadata");
        let metadata = metadata.map(|entry| model.written("metadata", &entry.value, self.mistakes));
        Some(Envelope { resource: resource?, id: id?, tenant, metadata: metadata.unwrap_or_default() })
    }

    fn previous(&mut self, entry: &Entry, payload: Option<&Payload<'m>>) -> Vec<&'m Field> {
        let written: Vec<&Field> = match payload {
            Some(Payload::Whole) => self.model.fields.iter().collect(),
            Some(Payload::Fields(fields)) => fields.clone(),
            Some(Payload::Envelope(_)) | None => Vec::new(),
        };
        if let Some(clash) = written.iter().find(|field| !field.skipped && field.wire == "previous") {
            let message = format!(
                "the payload has a `previous` already, from the field `{}`; give that another name with \
                    `#[serde(rename = \"…\")]`",
                clash.name
            );
            self.mistakes.add(&entry.name, message);
        }
        self.fields(entry)
    }

    fn cache(&mut self, entry: &Entry) -> Option<Cache<'m>> {
        let entries = Options::of_map(
            &entry.value,
            &["key", "ttl", "fields"],
            "{ key = \"camera:{id}\", ttl = 3600 }",
            self.mistakes,
        )?;
        let key = entries.required("key", "`key = \"camera:{id}\"`", self.mistakes, Value::text);
        let ttl = entries.required("ttl", "`ttl = 3600`", self.mistakes, Value::duration);
        let fields = entries.get("fields").map(|entry| self.fields(entry));
        if let Some((text, key)) =
            key.as_ref().and_then(|text| Some((text, self.mistakes.keep(Key::of(text))?)))
        {
            if let Some(path) = key.placeholders.iter().find(|placeholder| placeholder.contains('.')) {
                self.mistakes
                    .add(text, format_args!("`{{{path}}}` is a path; a model's key is made of its fields"));
            } else {
                self.fill(text, &key.placeholders);
            }
        }
        Some(Cache { key: key?, ttl: ttl?, fields })
    }
}
