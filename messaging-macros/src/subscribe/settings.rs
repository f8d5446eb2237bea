//! The settings of a handler: `workers`, `ordered_by`, `buffer`, `overflow`, `timeout`, `retry`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;

use super::options::Channels;
use crate::descriptor::Runtime;
use crate::literal::DurationTokens;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::value::{Value, ValueKind};

/// What can be set; what is not given keeps the runtime's default.
pub(super) struct Settings {
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

impl Settings {
    pub(super) fn read(options: &Options, channels: Option<&Channels>, mistakes: &mut Mistakes) -> Self {
        let workers = options.optional("workers", mistakes, Value::count::<NonZeroUsize>);
        let ordered_by = options.get("ordered_by").and_then(|entry| {
            if !options.has("workers") || workers.is_some_and(|workers| workers.get() == 1) {
                let message = "`ordered_by` needs `workers = …` with more than one; a single worker keeps \
                    the order anyway";
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

    /// The constant `HandlerOptions`.
    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        let Self { workers, ordered_by, buffer, overflow, timeout, retry } = self;
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
            let duration =
                |duration: &Option<Duration>| duration.map(|it| DurationTokens(it).to_token_stream());
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

/// `None` if it cannot be told because the channels are wrong themselves.
fn read_ordered_by(value: &Value, channels: Option<&Channels>) -> syn::Result<Option<OrderedBy>> {
    let Some(ident) = value.ident() else {
        return Err(value.error("expected the name of a placeholder, or `channel`"));
    };
    let name = ident.unraw().to_string();
    match channels {
        None => Ok(None),
        Some(Channels::Texts { placeholders, .. }) if placeholders.contains(&name) => {
            Ok(Some(OrderedBy::Placeholder(name)))
        }
        Some(_) if name == "channel" => Ok(Some(OrderedBy::Channel)),
        Some(Channels::Texts { placeholders, .. }) => {
            let there_is = match &**placeholders {
                [] => "the channel has none, so write `channel`".to_owned(),
                names => format!(
                    "write {} or `channel`",
                    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
                ),
            };
            Err(value.error(format_args!("there is no placeholder `{{{name}}}`; {there_is}")))
        }
        Some(Channels::Typed(_)) => Err(value.error(
            "with a `#[channel]` type, write `ordered_by = channel`: each channel then keeps its order",
        )),
    }
}

fn read_overflow(value: &Value) -> syn::Result<&'static str> {
    let text =
        value.text().map_err(|_| value.error("expected \"wait\", \"drop_oldest\" or \"block\""))?.value();
    match &*text {
        "wait" => Ok("Wait"),
        "drop_oldest" => Ok("DropOldest"),
        "block" => Ok("Block"),
        _ => Err(value.error(format_args!(
            "{text:?} is no way to deal with overflow; write \"wait\", \"drop_oldest\" or \"block\""
        ))),
    }
}

impl Buffer {
    fn read(value: &Value, mistakes: &mut Mistakes) -> Option<Self> {
        if let ValueKind::Literal(_) = &value.kind {
            let messages = mistakes.keep(value.count().map_err(|_| {
                let advice = "a buffer is a number of messages above zero, such as `500`, or `{ messages = \
                    500, bytes = \"8MiB\" }`";
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
        let entries = Options::of_map(
            value,
            &["attempts", "initial", "multiplier", "max_delay"],
            "{ attempts = 3 }",
            mistakes,
        )?;
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
