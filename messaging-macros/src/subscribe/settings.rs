//! The settings of a handler: `workers`, `ordered_by`, `buffer`, `overflow`, `timeout`, `retry`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote};

use super::delivery::Mode;
use super::options::Channels;
use super::order::OrderedBy;
use crate::constants::{DurationTokens, non_zero, updated};
use crate::descriptor::Runtime;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::value::{Value, ValueKind};

const OVERFLOWS: &[(&str, &str)] = &[("wait", "Wait"), ("drop_oldest", "DropOldest"), ("block", "Block")];

/// What can be set; what is not given keeps the runtime's default.
pub(super) struct Settings {
    workers: Option<NonZeroUsize>,
    ordered_by: Option<OrderedBy>,
    buffer: Option<Buffer>,
    overflow: Option<&'static str>,
    timeout: Option<Duration>,
    retry: Option<Retry>,
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
    /// `channels` and `mode` are missing if they are wrong themselves.
    pub(super) fn read(
        options: &Options,
        channels: Option<&Channels>,
        mode: Option<Mode>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let workers = options.optional("workers", mistakes, Value::count::<NonZeroUsize>);
        let ordered_by = options.get("ordered_by").and_then(|entry| {
            let ordered_by = mistakes.keep(OrderedBy::read(&entry.value, channels, mode)).flatten()?;
            let is_single = !options.has("workers") || workers.is_some_and(|workers| workers.get() == 1);
            if is_single && !matches!(ordered_by, OrderedBy::Key) {
                let message = match mode {
                    Some(Mode::Queue | Mode::Resumable) => {
                        "`ordered_by` needs `workers = …` with more than one; with a single one only \
                            `ordered_by = key` makes a difference: a key then waits for its own retries"
                    }
                    Some(Mode::Broadcast) | None => {
                        "`ordered_by` needs `workers = …` with more than one; a single worker keeps the \
                            order anyway"
                    }
                };
                mistakes.add(&entry.name, message);
            }
            Some(ordered_by)
        });
        Self {
            workers,
            ordered_by,
            buffer: options.get("buffer").and_then(|entry| Buffer::read(&entry.value, mistakes)),
            overflow: options
                .optional("overflow", mistakes, |value| value.choice("way to deal with overflow", OVERFLOWS)),
            timeout: options.optional("timeout", mistakes, Value::duration),
            retry: options.get("retry").and_then(|entry| Retry::read(&entry.value, mistakes)),
        }
    }

    /// The constant `HandlerOptions`.
    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        let Self { workers, ordered_by, buffer, overflow, timeout, retry } = self;
        let mut settings = quote!(#runtime::HandlerOptions::DEFAULT);
        if let Some(workers) = workers {
            let workers = non_zero("NonZeroUsize", workers.get());
            settings.extend(quote!(.workers(#workers)));
        }
        if let Some(ordered_by) = ordered_by {
            let ordered_by = ordered_by.tokens(runtime);
            settings.extend(quote!(.ordered_by(#ordered_by)));
        }
        if let Some(Buffer { messages, bytes }) = buffer {
            let bound =
                |bound: &Option<NonZeroUsize>| bound.map(|bound| non_zero("NonZeroUsize", bound.get()));
            let buffer =
                updated(&quote!(#runtime::Buffer), &[("messages", bound(messages)), ("bytes", bound(bytes))]);
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
            let attempts = attempts.map(|attempts| non_zero("NonZeroU32", attempts.get()));
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
