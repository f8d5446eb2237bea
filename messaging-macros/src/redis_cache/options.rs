//! What stands in `#[redis_cache(…)]`, read and checked against the function's arguments.

use std::time::Duration;

use proc_macro2::{Ident, TokenStream};
use syn::ext::IdentExt;
use syn::{LitStr, Path, Type};

use super::keep;
use super::layer::Local;
use crate::descriptor::{Identity, Runtime};
use crate::function::{Argument, Function};
use crate::mistakes::Mistakes;
use crate::names::advice;
use crate::operation::Operation;
use crate::option_name::Name;
use crate::options::Options;
use crate::place::Place;
use crate::template::{Key, Pattern};
use crate::value::{Value, ValueKind, split};

const KNOWN: &[&str] = &[
    "key",
    "ttl",
    "invalidate_on",
    "local",
    "stale",
    "wait",
    "jitter",
    "cache_none",
    "prefix",
    "id",
    "companions",
    "crate",
];

/// One `#[redis_cache]`.
pub(super) struct Config {
    pub(super) runtime: Runtime,
    pub(super) identity: Identity,
    /// With the prefix in front.
    pub(super) key: LitStr,
    pub(super) placeholders: Vec<Placeholder>,
    pub(super) ttl: Duration,
    pub(super) jitter: f64,
    pub(super) cache_none: Option<(Name, Duration)>,
    pub(super) stale: Option<(Name, Duration)>,
    pub(super) wait: Option<Duration>,
    pub(super) local: Option<Local>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) has_companions: bool,
}

/// A placeholder of the key.
pub(super) struct Placeholder {
    pub(super) text: String,
    /// The argument, or `self`.
    pub(super) root: Ident,
    /// The path into it; empty for a plain placeholder.
    pub(super) path: Vec<Ident>,
    /// The argument's type; none for `self`.
    pub(super) ty: Option<Type>,
    /// Where a value that cannot be in a key is reported: at the argument's type, or at the key for a path.
    pub(super) place: Place,
}

/// One entry of `invalidate_on`.
pub(super) struct Trigger {
    pub(super) on: TriggerOn,
    /// Which value of the event fills which placeholder, where that is not the one of the same name.
    pub(super) select: Vec<(String, String)>,
}

pub(super) enum TriggerOn {
    Channel(LitStr),
    Model(Path, Vec<Operation>),
}

impl Config {
    pub(super) fn read(
        arguments: TokenStream,
        function: Option<&Function>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let segments = split(arguments, mistakes);
        let options = Options::of_attribute(segments, KNOWN, mistakes);
        let runtime = Runtime::of(&options, mistakes);
        let identity = Identity::of(&options, mistakes);
        let text = options.required("key", "`key = \"camera:{id}\"`", mistakes, Value::text);
        let ttl = options.required("ttl", "`ttl = 3600`", mistakes, Value::duration);
        let jitter = options.optional("jitter", mistakes, Value::share);
        let cache_none = options
            .get("cache_none")
            .and_then(|entry| Some((entry.name.clone(), mistakes.keep(entry.value.duration())?)));
        let stale = options
            .get("stale")
            .and_then(|entry| Some((entry.name.clone(), mistakes.keep(entry.value.duration())?)));
        let wait = options.optional("wait", mistakes, Value::duration);
        let local = options.get("local").and_then(|entry| {
            let longest = options.get("ttl").map(|entry| &entry.value).zip(ttl);
            Local::read(&entry.value, longest, mistakes)
        });
        let prefix = options.optional("prefix", mistakes, read_prefix);
        let has_companions = options.optional("companions", mistakes, Value::truth).unwrap_or(true);
        if let Some(name) = options.name("stale") {
            if !has_companions {
                let message = "`stale` loads again after the call has ended, for which it needs a function beside \
                    this one; remove `companions = false`, or leave `stale` out";
                mistakes.add(name, message);
            } else if let Some(function) = function {
                keep::check(function, mistakes);
            }
        } else if options.has("local")
            && let Some(function) = function
        {
            keep::check_returned(function, "`local` keeps what the function returns, so it", mistakes);
        }
        let key = text.as_ref().and_then(|text| mistakes.keep(Key::of(text)));
        let triggers = match options.get("invalidate_on") {
            Some(entry) => read_triggers(&entry.value, key.as_ref(), mistakes),
            None => Vec::new(),
        };
        let text = text?;
        let placeholders = placeholders(&text, &key?, function?, mistakes);
        let key = match prefix {
            Some(prefix) => LitStr::new(&format!("{prefix}:{}", text.value()), text.span()),
            None => text,
        };
        let jitter = jitter.unwrap_or(0.1);
        Some(Self {
            runtime,
            identity,
            key,
            placeholders: placeholders?,
            ttl: ttl?,
            jitter,
            cache_none,
            stale,
            wait,
            local,
            triggers,
            has_companions,
        })
    }
}

fn read_prefix(value: &Value) -> syn::Result<String> {
    let prefix = value.text()?.value();
    if prefix.is_empty() {
        return Err(value.error("this prefix is empty; leave `prefix` out"));
    }
    if prefix.contains(['{', '}']) || prefix.contains(char::is_control) {
        return Err(value.error("a prefix is plain text without placeholders; those belong into `key`"));
    }
    if prefix.ends_with(':') {
        return Err(value.error("prefix and key are joined with a `:` already; remove the one at the end"));
    }
    Ok(prefix)
}

/// Finds the argument of each placeholder.
fn placeholders(
    text: &LitStr,
    key: &Key,
    function: &Function,
    mistakes: &mut Mistakes,
) -> Option<Vec<Placeholder>> {
    let arguments = function.arguments();
    let found: Vec<_> = key
        .placeholders
        .iter()
        .map(|placeholder| {
            let mut names = placeholder.split('.');
            let root = names.next().unwrap_or_default();
            // A field that does not exist is reported at the key.
            let place = |ident: &Ident| ident.span().located_at(text.span());
            if root == "self"
                && let Some(receiver) = function.receiver()
            {
                let root = Ident::from(receiver.self_token);
                let path = names.map(|name| field(name, place(&root))).collect::<Vec<_>>();
                if path.is_empty() {
                    mistakes.add(
                        text,
                        "`{self}` names the whole service; write the field, such as `{self.tenant}`",
                    );
                    return None;
                }
                return Some(Placeholder {
                    text: placeholder.clone(),
                    root,
                    path,
                    ty: None,
                    place: Place::of(text),
                });
            }
            let Some(argument) = arguments.iter().find(|argument| argument.name.as_deref() == Some(root))
            else {
                mistakes.add(text, no_argument(placeholder, root, &arguments));
                return None;
            };
            let path: Vec<Ident> = names.map(|name| field(name, place(&argument.ident))).collect();
            let place = if path.is_empty() { Place::of(&argument.ty) } else { Place::of(text) };
            let (root, ty) = (argument.ident.clone(), Some(argument.ty.clone()));
            Some(Placeholder { text: placeholder.clone(), root, path, ty, place })
        })
        .collect();
    found.into_iter().collect()
}

/// A field's name, raw if it is a keyword.
fn field(name: &str, span: proc_macro2::Span) -> Ident {
    syn::parse_str::<Ident>(name).map_or_else(|_| Ident::new_raw(name, span), |_| Ident::new(name, span))
}

fn no_argument(placeholder: &str, root: &str, arguments: &[Argument]) -> String {
    let names = arguments.iter().filter_map(|argument| argument.name.as_deref());
    if names.clone().next().is_none() {
        return format!("`{{{placeholder}}}` names no argument; the function has none with a name");
    }
    format!("`{{{placeholder}}}` names no argument{}", advice(root, "argument", names))
}

fn read_triggers(value: &Value, key: Option<&Key>, mistakes: &mut Mistakes) -> Vec<Trigger> {
    const EXAMPLE: &str =
        "such as `[\"camera.updated\", Camera(delete), { on = \"moved\", id = camera_id }]`";
    let ValueKind::List(items) = &value.kind else {
        mistakes.add(value, format_args!("expected a list of events, {EXAMPLE}"));
        return Vec::new();
    };
    if items.is_empty() {
        mistakes.add(
            value,
            format_args!("this list is empty; name events, {EXAMPLE}, or leave `invalidate_on` out"),
        );
    }
    let mut triggers = Vec::with_capacity(items.len());
    for item in items {
        triggers.extend(match &item.kind {
            ValueKind::Map(_) => read_selecting(item, key, mistakes),
            _ => read_on(item, mistakes).map(|on| {
                refuse_paths_of_models(&on, item, &[], key, mistakes);
                Trigger { on, select: Vec::new() }
            }),
        });
    }
    triggers
}

fn read_on(value: &Value, mistakes: &mut Mistakes) -> Option<TriggerOn> {
    match &value.kind {
        ValueKind::Call(path, operations) => {
            if operations.is_empty() {
                mistakes.add(value, "name the operations, such as `Camera(update, delete)`");
            }
            let operations: Vec<_> =
                operations.iter().map(|operation| mistakes.keep(read_operation(operation))).collect();
            Some(TriggerOn::Model(path.clone(), operations.into_iter().collect::<Option<_>>()?))
        }
        ValueKind::Path(path) => {
            let name = path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
            mistakes.add(value, format_args!("which of its events? write `{name}(update, delete)`"));
            None
        }
        _ => {
            let text = mistakes.keep(value.text().map_err(|_| {
                value.error(
                    "expected a channel in quotes, a model with its operations such as \
                    `Camera(update)`, or a map `{ on = …, placeholder = field }`",
                )
            }))?;
            mistakes.keep(Pattern::of(&text))?;
            Some(TriggerOn::Channel(text))
        }
    }
}

fn read_operation(value: &Value) -> syn::Result<Operation> {
    let name = value.ident().map(|ident| ident.unraw().to_string());
    name.as_deref().and_then(Operation::of).ok_or_else(|| {
        let advice = advice(&name.unwrap_or_default(), "operation", Operation::NAMES.iter().copied());
        value.error(format_args!("this is no operation{advice}"))
    })
}

/// `{ on = …, placeholder = path.to.value }`.
fn read_selecting(value: &Value, key: Option<&Key>, mistakes: &mut Mistakes) -> Option<Trigger> {
    let entries = Options::of_free_map(value, "{ on = \"camera.updated\", id = camera_id }", mistakes)?;
    let mut on = None;
    if let Some(entry) = entries.get("on") {
        on = read_on(&entry.value, mistakes);
    } else if !entries.has("on") {
        mistakes.add(value, "`on` is missing; add the event, such as `on = \"camera.updated\"`");
    }
    let mut select = Vec::new();
    for entry in entries.entries().iter().filter(|entry| entry.name.text != "on") {
        let placeholder = &entry.name.text;
        if let Some(key) = key
            && !key.placeholders.contains(placeholder)
        {
            let advice = match &*key.placeholders {
                [] => "; it has none, so every event removes its only entry".to_owned(),
                names => advice(placeholder, "placeholder", names.iter().map(String::as_str)),
            };
            mistakes.add(&entry.name, format_args!("the key has no placeholder `{{{placeholder}}}`{advice}"));
        }
        let is_model = matches!(on, Some(TriggerOn::Model(..)));
        if let Some(path) = mistakes.keep(read_selector(&entry.value, is_model)) {
            select.push((placeholder.clone(), path));
        }
    }
    let on = on?;
    let selected: Vec<&str> = select.iter().map(|(placeholder, _)| placeholder.as_str()).collect();
    refuse_paths_of_models(&on, value, &selected, key, mistakes);
    Some(Trigger { on, select })
}

/// A field of a model, or a path into a payload.
fn read_selector(value: &Value, is_model: bool) -> syn::Result<String> {
    match &value.kind {
        ValueKind::Path(path) if path.get_ident().is_some() => {
            Ok(path.get_ident().map(|ident| ident.unraw().to_string()).unwrap_or_default())
        }
        ValueKind::Dotted(_) | ValueKind::Literal(_) if is_model => {
            Err(value
                .error("for a model, name one of its Rust fields; where that stands in the event is known"))
        }
        ValueKind::Dotted(names) => {
            let names: Vec<String> = names.iter().map(|name| name.unraw().to_string()).collect();
            Ok(names.join("."))
        }
        ValueKind::Literal(syn::Lit::Str(text)) if text.value().split('.').all(|name| !name.is_empty()) => {
            Ok(text.value())
        }
        _ => {
            Err(value
                .error("expected where the value stands in the payload, such as `id` or `metadata.slug`"))
        }
    }
}

/// A path placeholder is no field of a model, so its field must be named.
fn refuse_paths_of_models(
    on: &TriggerOn,
    place: &Value,
    selected: &[&str],
    key: Option<&Key>,
    mistakes: &mut Mistakes,
) {
    let (TriggerOn::Model(path, operations), Some(key)) = (on, key) else { return };
    let unnamed = key.placeholders.iter().filter(|placeholder| placeholder.contains('.'));
    for placeholder in unnamed.filter(|placeholder| !selected.contains(&placeholder.as_str())) {
        let model = path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        let operations: Vec<&str> = operations.iter().map(|operation| operation.name()).collect();
        let message = format!(
            "which field of `{model}` fills `{{{placeholder}}}`? write `{{ on = {model}({}), {placeholder} \
                = … }}`",
            operations.join(", ")
        );
        mistakes.add(place, message);
    }
}
