//! What stands in `#[subscribe(…)]`, read and checked.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{LitStr, Path};

use crate::descriptor::{Identity, Runtime};
use crate::literal::DurationTokens;
use crate::mistakes::Mistakes;
use crate::names::listed;
use crate::options::{Options, Value, ValueKind, split};
use crate::template::Pattern;

const KNOWN: &[&str] = &[
    "workers",
    "ordered_by",
    "buffer",
    "overflow",
    "timeout",
    "retry",
    "resync",
    "resync_every",
    "id",
    "crate",
];

/// One `#[subscribe]`.
pub(crate) struct Subscription {
    pub(crate) runtime: Runtime,
    /// Where the attribute stands.
    pub(crate) place: Span,
    pub(crate) channels: Channels,
    pub(crate) identity: Identity,
    pub(crate) resync: Option<Resync>,
    settings: Settings,
}

/// What it listens to.
pub(crate) enum Channels {
    /// The placeholders are the same in all of them.
    Texts { texts: Vec<LitStr>, placeholders: Vec<String> },
    /// A `#[channel]` type.
    Typed(Path),
}

pub(crate) struct Resync {
    pub(crate) path: Path,
    pub(crate) every: Option<Duration>,
}

#[derive(Default)]
struct Settings {
    workers: Option<NonZeroUsize>,
    ordered_by: Option<OrderedBy>,
    buffer: Option<Buffer>,
    overflow: Option<&'static str>,
    timeout: Option<Duration>,
    retry: Option<Retry>,
}

enum OrderedBy {
    Channel,
    Placeholder(String),
}

struct Buffer {
    messages: Option<NonZeroUsize>,
    bytes: Option<NonZeroUsize>,
}

struct Retry {
    attempts: Option<NonZeroU32>,
    initial: Option<Duration>,
    multiplier: Option<f64>,
    max_delay: Option<Duration>,
}

impl Subscription {
    /// `runtime` is used where no `crate = …` is given.
    pub(crate) fn read(
        arguments: TokenStream,
        place: Span,
        runtime: &Runtime,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let mut segments = split(arguments, mistakes);
        let channels = read_channels(&mut segments, place, mistakes);
        segments.retain(|segment| {
            let is_text = syn::parse2::<LitStr>(segment.clone()).is_ok();
            if is_text {
                mistakes.add(segment, "several channels stand in a list: `[\"a\", \"b\"]`");
            }
            !is_text
        });
        let options = Options::of_attribute(segments, KNOWN, mistakes);
        let settings = Settings::read(&options, channels.as_ref(), mistakes);
        let resync = read_resync(&options, mistakes);
        let runtime = Runtime::given(&options, mistakes).unwrap_or_else(|| runtime.clone());
        let identity = Identity::of(&options, mistakes);
        Some(Self { runtime, place, channels: channels?, identity, resync, settings })
    }

    pub(crate) fn placeholders(&self) -> &[String] {
        match &self.channels {
            Channels::Texts { placeholders, .. } => placeholders,
            Channels::Typed(_) => &[],
        }
    }

    /// The constant `HandlerOptions`.
    pub(crate) fn settings(&self) -> TokenStream {
        let runtime = &self.runtime;
        let Settings { workers, ordered_by, buffer, overflow, timeout, retry } = &self.settings;
        let mut settings = quote!(#runtime::HandlerOptions::DEFAULT);
        if let Some(workers) = workers {
            let workers = non_zero(*workers);
            settings.extend(quote!(.workers(#workers)));
        }
        if let Some(ordered_by) = ordered_by {
            let ordered_by = match ordered_by {
                OrderedBy::Channel => quote!(Channel),
                OrderedBy::Placeholder(name) => quote!(Placeholder(#name)),
            };
            settings.extend(quote!(.ordered_by(#runtime::OrderedBy::#ordered_by)));
        }
        if let Some(Buffer { messages, bytes }) = buffer {
            let buffer = updated(
                &quote!(#runtime::Buffer),
                &[("messages", messages.map(non_zero)), ("bytes", bytes.map(non_zero))],
            );
            settings.extend(quote!(.buffer(#buffer)));
        }
        if let Some(overflow) = overflow {
            let overflow = format_ident!("{overflow}");
            settings.extend(quote!(.overflow(#runtime::Overflow::#overflow)));
        }
        if let Some(timeout) = timeout {
            let timeout = DurationTokens(*timeout);
            settings.extend(quote!(.timeout(#timeout)));
        }
        if let Some(Retry { attempts, initial, multiplier, max_delay }) = retry {
            let attempts = attempts.map(|attempts| {
                let attempts = attempts.get();
                quote!(::core::num::NonZeroU32::new(#attempts).unwrap())
            });
            let duration = |duration: &Option<Duration>| duration.map(|it| DurationTokens(it).to_token_stream());
            let retry = updated(
                &quote!(#runtime::Retry),
                &[
                    ("attempts", attempts),
                    ("initial", duration(initial)),
                    ("multiplier", multiplier.map(|multiplier| multiplier.to_token_stream())),
                    ("max_delay", duration(max_delay)),
                ],
            );
            settings.extend(quote!(.retry(#retry)));
        }
        settings
    }
}

/// `Type { name: value, ..Type::DEFAULT }` with the values that there are.
fn updated(ty: &TokenStream, fields: &[(&str, Option<TokenStream>)]) -> TokenStream {
    let given = fields.iter().filter_map(|(name, value)| {
        let name = format_ident!("{name}");
        value.as_ref().map(|value| quote!(#name: #value,))
    });
    let rest = fields.iter().any(|(_, value)| value.is_none()).then(|| quote!(..#ty::DEFAULT));
    quote!(#ty { #(#given)* #rest })
}

fn non_zero(number: NonZeroUsize) -> TokenStream {
    let number = number.get();
    quote!(::core::num::NonZeroUsize::new(#number).unwrap())
}

/// Takes the channels off the front.
fn read_channels(segments: &mut Vec<TokenStream>, place: Span, mistakes: &mut Mistakes) -> Option<Channels> {
    const EXAMPLE: &str = "as in `#[subscribe(\"camera.created\")]`";
    if segments.is_empty() {
        mistakes.add_at(place, format_args!("a handler needs a channel, {EXAMPLE}"));
        return None;
    }
    let first = segments[0].clone();
    if is_option(&first) {
        mistakes.add(&first, format_args!("the channel stands first, {EXAMPLE}; options follow it"));
        return None;
    }
    segments.remove(0);
    let value = Value::read(first, mistakes)?;
    if let ValueKind::Path(path) = value.kind {
        return Some(Channels::Typed(path));
    }
    let texts = mistakes.keep(value.channels().map_err(|error| match value.kind {
        ValueKind::List(_) | ValueKind::Literal(_) => error,
        _ => value.error(format_args!("expected a channel, {EXAMPLE}, a list of them, or a `#[channel]` type")),
    }))?;
    same_placeholders(texts, mistakes)
}

/// Whether it reads `name = …`.
fn is_option(segment: &TokenStream) -> bool {
    let mut tokens = segment.clone().into_iter();
    matches!(tokens.next(), Some(TokenTree::Ident(_)))
        && matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == '=')
}

fn same_placeholders(texts: Vec<LitStr>, mistakes: &mut Mistakes) -> Option<Channels> {
    let patterns: Vec<_> = texts.iter().map(|text| mistakes.keep(Pattern::of(text))).collect();
    let patterns: Vec<Pattern> = patterns.into_iter().collect::<Option<_>>()?;
    let sorted = |pattern: &Pattern| {
        let mut names = pattern.names.clone();
        names.sort();
        names
    };
    for (position, (text, pattern)) in texts.iter().zip(&patterns).enumerate() {
        if texts[..position].iter().any(|earlier| earlier.value() == text.value()) {
            mistakes.add(text, format_args!("{:?} is in the list twice; remove one of them", text.value()));
        }
        if sorted(pattern) != sorted(&patterns[0]) {
            let has = |pattern: &Pattern| match &*pattern.names {
                [] => "none".to_owned(),
                names => listed(names.iter().map(String::as_str)),
            };
            let message = format!(
                "the channels of one handler have the same placeholders: {:?} has {}, {:?} has {}",
                texts[0].value(),
                has(&patterns[0]),
                text.value(),
                has(pattern),
            );
            mistakes.add(text, message);
        }
    }
    let placeholders = patterns.into_iter().next()?.names;
    Some(Channels::Texts { texts, placeholders })
}

impl Settings {
    fn read(options: &Options, channels: Option<&Channels>, mistakes: &mut Mistakes) -> Self {
        let workers = options.optional("workers", mistakes, Value::count::<NonZeroUsize>);
        let ordered_by = options.get("ordered_by").and_then(|entry| {
            if !options.has("workers") || workers.is_some_and(|workers| workers.get() == 1) {
                let message = "`ordered_by` needs `workers = …` with more than one; a single worker keeps the order anyway";
                mistakes.add(&entry.name, message);
            }
            mistakes.keep(read_ordered_by(&entry.value, channels)).flatten()
        });
        Self {
            workers,
            ordered_by,
            buffer: options.get("buffer").and_then(|entry| Buffer::read(&entry.value, mistakes)),
            overflow: options.optional("overflow", mistakes, read_overflow),
            timeout: options.optional("timeout", mistakes, Value::duration),
            retry: options.get("retry").and_then(|entry| Retry::read(&entry.value, mistakes)),
        }
    }
}

/// `None` if it cannot be told because the channels are wrong themselves.
fn read_ordered_by(value: &Value, channels: Option<&Channels>) -> syn::Result<Option<OrderedBy>> {
    let Some(ident) = value.ident() else {
        return Err(value.error("expected the name of a placeholder, or `channel`"));
    };
    let name = syn::ext::IdentExt::unraw(ident).to_string();
    match channels {
        None => Ok(None),
        Some(Channels::Texts { placeholders, .. }) if placeholders.contains(&name) => {
            Ok(Some(OrderedBy::Placeholder(name)))
        }
        Some(_) if name == "channel" => Ok(Some(OrderedBy::Channel)),
        Some(Channels::Texts { placeholders, .. }) => {
            let there_is = match &**placeholders {
                [] => "the channel has none, so write `channel`".to_owned(),
                names => format!("write {} or `channel`", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
            };
            Err(value.error(format_args!("there is no placeholder `{{{name}}}`; {there_is}")))
        }
        Some(Channels::Typed(_)) => {
            Err(value.error("with a `#[channel]` type, write `ordered_by = channel`: each channel then keeps its order"))
        }
    }
}

fn read_overflow(value: &Value) -> syn::Result<&'static str> {
    let text = value.text().map_err(|_| value.error("expected \"wait\", \"drop_oldest\" or \"block\""))?.value();
    match &*text {
        "wait" => Ok("Wait"),
        "drop_oldest" => Ok("DropOldest"),
        "block" => Ok("Block"),
        _ => Err(value.error(format_args!("{text:?} is no way to deal with overflow; write \"wait\", \"drop_oldest\" or \"block\""))),
    }
}

impl Buffer {
    fn read(value: &Value, mistakes: &mut Mistakes) -> Option<Self> {
        if let ValueKind::Literal(_) = &value.kind {
            let messages = mistakes.keep(value.count().map_err(|_| {
                let advice = "a buffer is a number of messages above zero, such as `500`, or `{ messages = 500, bytes = \"8MiB\" }`";
                value.error(advice)
            }));
            return Some(Self { messages, bytes: None });
        }
        let entries = Options::of_map(value, &["messages", "bytes"], "{ messages = 500 }", mistakes)?;
        Some(Self {
            messages: entries.optional("messages", mistakes, Value::count),
            bytes: entries.optional("bytes", mistakes, Value::size),
        })
    }
}

impl Retry {
    fn read(value: &Value, mistakes: &mut Mistakes) -> Option<Self> {
        let entries = Options::of_map(value, &["attempts", "initial", "multiplier", "max_delay"], "{ attempts = 3 }", mistakes)?;
        let initial = entries.optional("initial", mistakes, Value::duration_or_zero);
        let max_delay = entries.optional("max_delay", mistakes, |value| {
            let max_delay = value.duration_or_zero()?;
            if initial.is_some_and(|initial| initial > max_delay) {
                return Err(value.error("`max_delay` is shorter than `initial`"));
            }
            Ok(max_delay)
        });
        Some(Self {
            attempts: entries.optional("attempts", mistakes, |value| {
                value.count().map_err(|_| {
                    value.error("`attempts` counts the first call too, so it is a whole number from 1")
                })
            }),
            initial,
            multiplier: entries.optional("multiplier", mistakes, |value| {
                let multiplier = value.fraction()?;
                if multiplier < 1.0 {
                    return Err(value.error("delays do not shrink; write a multiplier of at least 1"));
                }
                Ok(multiplier)
            }),
            max_delay,
        })
    }
}

fn read_resync(options: &Options, mistakes: &mut Mistakes) -> Option<Resync> {
    let path = options.optional("resync", mistakes, |value| {
        value.path().map_err(|_| value.error("expected the path of an async function, such as `resync = reload`"))
    });
    let every = options.optional("resync_every", mistakes, Value::duration);
    if let (false, Some(entry)) = (options.has("resync"), options.get("resync_every")) {
        mistakes.add(&entry.name, "`resync_every` says how often; `resync = path::to::async_fn` must say what to call");
    }
    path.map(|path| Resync { path, every })
}
