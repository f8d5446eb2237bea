//! What stands in `#[subscription(…)]`, read and checked.

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::{Error, LitStr};

use super::access::Access;
use super::field;
use super::filters::{self, Filter};
use crate::descriptor::{Identity, Runtime};
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::template::{Kind, Pattern};
use crate::value::{Value, split};

const KNOWN: &[&str] = &[
    "entity",
    "channels",
    "filters",
    "authorize",
    "public",
    "tenant",
    "send",
    "presence",
    "slow",
    "id",
    "crate",
];

/// Those that may stand without a value.
const BARE: &[&str] = &["public", "send", "presence"];

/// The words for what happens to a client that does not keep up, and the variants of `SlowPolicy`.
const SLOW: &[(&str, &str)] =
    &[("disconnect", DISCONNECT), ("latest", "Latest"), ("drop_oldest", "DropOldest")];

const DISCONNECT: &str = "Disconnect";

const ENTITY: &str = "which is 1 to 64 letters from A to Z, digits, `_`, `.` or `-`";

/// One `#[subscription]`.
pub(super) struct Config {
    pub(super) runtime: Runtime,
    pub(super) identity: Identity,
    /// Without it, it is the struct's name.
    pub(super) entity: Option<LitStr>,
    pub(super) channels: Vec<LitStr>,
    pub(super) filters: Vec<Filter>,
    pub(super) tenant: Option<String>,
    pub(super) access: Access,
    pub(super) send: bool,
    pub(super) presence: bool,
    /// The variant of `SlowPolicy`.
    pub(super) slow: &'static str,
}

impl Config {
    /// `name` is that of the struct, if it is one. `None` only after a mistake; an option with a mistake in it is taken
    /// as not given.
    pub(super) fn read(
        arguments: TokenStream,
        name: Option<&Ident>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let segments = split(arguments, mistakes);
        let options = Options::with_bare_words(segments, KNOWN, BARE, mistakes);
        if let (Some(name), false) = (name, options.has("entity"))
            && !is_entity(&name.unraw().to_string())
        {
            let message = format!("`{name}` cannot be an entity's name, {ENTITY}; add `entity = \"…\"`");
            mistakes.add(name, message);
        }
        let runtime = Runtime::given(&options, mistakes).unwrap_or_else(Runtime::gateway);
        let identity = Identity::of(&options, mistakes);
        let entity = options.optional("entity", mistakes, read_entity);
        let channels = read_channels(&options, mistakes);
        let filters = options.get("filters").map(|entry| filters::read(&entry.value, mistakes));
        let tenant = options.optional("tenant", mistakes, field::of_value);
        let access = Access::read(&options, mistakes);
        let [send, presence] = ["send", "presence"].map(|word| options.flag(word, mistakes));
        let slow =
            options.optional("slow", mistakes, |value| value.choice("way to treat slow clients", SLOW));
        Some(Self {
            runtime,
            identity,
            entity,
            channels: channels?,
            filters: filters.unwrap_or_default(),
            tenant,
            access: access?,
            send,
            presence,
            slow: slow.unwrap_or(DISCONNECT),
        })
    }

    /// What a refused attribute declares, so that whoever reads it makes no mistake of their own.
    pub(super) fn refused(runtime: Runtime) -> Self {
        Self {
            runtime,
            identity: Identity::default(),
            entity: None,
            channels: Vec::new(),
            filters: Vec::new(),
            tenant: None,
            access: Access::Public,
            send: false,
            presence: false,
            slow: DISCONNECT,
        }
    }
}

fn read_entity(value: &Value) -> syn::Result<LitStr> {
    let text =
        value.text().map_err(|_| value.error("expected the entity in quotes, such as \"CameraEvents\""))?;
    let entity = text.value();
    if is_entity(&entity) {
        return Ok(text);
    }
    Err(value.error(format_args!("{entity:?} cannot be an entity's name, {ENTITY}")))
}

fn is_entity(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Also refuses channels that are alike: which of them a client means could not be told.
fn read_channels(options: &Options, mistakes: &mut Mistakes) -> Option<Vec<LitStr>> {
    let texts = options.required("channels", "`channels = \"camera.events\"`", mistakes, Value::channels)?;
    let mut shapes: Vec<(String, String)> = Vec::new();
    for text in &texts {
        let Some(pattern) = mistakes.keep(read_channel(text)) else { continue };
        let (text_shape, value) = (shape(text, &pattern), text.value());
        match shapes.iter().find(|(shape, _)| *shape == text_shape) {
            Some((_, earlier)) if *earlier == value => {
                mistakes.add(text, format_args!("{value:?} is in the list twice; remove one of them"));
            }
            Some((_, earlier)) => {
                let message = format!("{value:?} and {earlier:?} are the same channels; remove one of them");
                mistakes.add(text, message);
            }
            None => shapes.push((text_shape, value)),
        }
    }
    Some(texts)
}

/// A channel or a template: what a client subscribes to is always one channel.
fn read_channel(text: &LitStr) -> syn::Result<Pattern> {
    let pattern = Pattern::of(text)?;
    if pattern.kind == Kind::Glob {
        let message = format!(
            "{:?} is a glob, and clients subscribe to one channel at a time; write a channel, or a template \
                such as \"a:{{id}}\"",
            text.value()
        );
        return Err(Error::new(text.span(), message));
    }
    Ok(pattern)
}

/// The text without the names of its placeholders.
fn shape(text: &LitStr, pattern: &Pattern) -> String {
    pattern.names.iter().fold(text.value(), |shape, name| {
        shape.replace(&format!("{{{name}}}"), "{}").replace(&format!("{{{name}*}}"), "{*}")
    })
}
