//! What stands in `#[subscribe(…)]`, read and checked.

use std::time::Duration;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{LitStr, Path};

use super::delivery::{Delivery, Mode};
use super::settings::Settings;
use crate::descriptor::{Identity, Runtime};
use crate::mistakes::Mistakes;
use crate::names::listed;
use crate::options::Options;
use crate::template::Pattern;
use crate::value::{Value, ValueKind, split};

const KNOWN: &[&str] = &[
    "workers",
    "ordered_by",
    "buffer",
    "overflow",
    "timeout",
    "retry",
    "delivery",
    "group",
    "start",
    "dedupe",
    "dead_letter",
    "sharded",
    "resync",
    "resync_every",
    "id",
    "crate",
];

/// Those that may stand without a value.
const BARE: &[&str] = &["sharded"];

/// One `#[subscribe]`.
pub(crate) struct Subscription {
    pub(crate) runtime: Runtime,
    /// Where the attribute stands.
    pub(crate) place: Span,
    pub(crate) channels: Channels,
    pub(crate) identity: Identity,
    pub(crate) resync: Option<Resync>,
    pub(super) delivery: Delivery,
    pub(super) settings: Settings,
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
        let options = Options::with_bare_words(segments, KNOWN, BARE, mistakes);
        let delivery = Delivery::read(&options, channels.as_ref(), mistakes);
        let settings = Settings::read(&options, channels.as_ref(), delivery.mode, mistakes);
        let resync = read_resync(&options, delivery.mode, mistakes);
        let runtime = Runtime::given(&options, mistakes).unwrap_or_else(|| runtime.clone());
        let identity = Identity::of(&options, mistakes);
        Some(Self { runtime, place, channels: channels?, identity, resync, delivery, settings })
    }

    pub(crate) fn placeholders(&self) -> &[String] {
        self.channels.placeholders()
    }
}

impl Channels {
    pub(super) fn placeholders(&self) -> &[String] {
        match self {
            Self::Texts { placeholders, .. } => placeholders,
            Self::Typed(_) => &[],
        }
    }
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
        _ => {
            value.error(format_args!("expected a channel, {EXAMPLE}, a list of them, or a `#[channel]` type"))
        }
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

fn read_resync(options: &Options, mode: Option<Mode>, mistakes: &mut Mistakes) -> Option<Resync> {
    let path = options.optional("resync", mistakes, |value| {
        value
            .path()
            .map_err(|_| value.error("expected the path of an async function, such as `resync = reload`"))
    });
    let every = options.optional("resync_every", mistakes, Value::duration);
    if let (false, Some(entry)) = (options.has("resync"), options.get("resync_every"))
        && mode != Some(Mode::Queue)
    {
        mistakes.add(
            &entry.name,
            "`resync_every` says how often; `resync = path::to::async_fn` must say what to call",
        );
    }
    path.map(|path| Resync { path, every })
}
