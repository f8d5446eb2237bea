//! Who gets a handler's messages, and what is promised: `delivery`, `sharded`, and the options that mean something
//! with some deliveries only.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::LitStr;

use super::options::Channels;
use crate::constants::DurationTokens;
use crate::descriptor::Runtime;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::template::{Kind, Pattern};
use crate::value::Value;

/// What is not given keeps the runtime's default.
pub(super) struct Delivery {
    /// `None` if it cannot be told because of a mistake.
    pub(super) mode: Option<Mode>,
    pub(super) group: Option<LitStr>,
    pub(super) dead_letter: Option<LitStr>,
    start: Option<&'static str>,
    dedupe: Option<Duration>,
    sharded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Broadcast,
    Resumable,
    Queue,
}

const MODES: &[(&str, Mode)] =
    &[("broadcast", Mode::Broadcast), ("resumable", Mode::Resumable), ("queue", Mode::Queue)];

const STARTS: &[(&str, &str)] = &[("new", "New"), ("beginning", "Beginning")];

impl Delivery {
    /// `channels` are missing if they are wrong themselves.
    pub(super) fn read(options: &Options, channels: Option<&Channels>, mistakes: &mut Mistakes) -> Self {
        let mode = match options.has("delivery") {
            true => options.optional("delivery", mistakes, |value| value.choice("delivery", MODES)),
            false => Some(Mode::Broadcast),
        };
        for (name, reason) in mode.map_or(&[][..], Mode::excluded) {
            if let Some(name) = options.name(name) {
                mistakes.add(name, reason);
            }
        }
        Self {
            mode,
            group: options.optional("group", mistakes, read_group),
            dead_letter: options.optional("dead_letter", mistakes, read_dead_letter),
            start: options.optional("start", mistakes, |value| value.choice("place to start", STARTS)),
            dedupe: options.optional("dedupe", mistakes, Value::duration),
            sharded: read_sharded(options, channels, mistakes),
        }
    }

    /// What is called on the constant `HandlerOptions`.
    pub(super) fn calls(&self, runtime: &Runtime) -> TokenStream {
        let Self { mode, start, dedupe, sharded, .. } = self;
        let mut calls = TokenStream::new();
        if let Some(mode) = mode.filter(|mode| *mode != Mode::Broadcast) {
            calls.extend(quote!(.delivery(#runtime::DeliveryMode::#mode)));
        }
        if let Some(start) = start {
            let start = Ident::new(start, Span::call_site());
            calls.extend(quote!(.start(#runtime::StartAt::#start)));
        }
        if let Some(window) = dedupe.map(DurationTokens) {
            calls.extend(quote!(.dedupe(#window)));
        }
        if *sharded {
            calls.extend(quote!(.carrier(#runtime::Carrier::Sharded)));
        }
        calls
    }
}

impl Mode {
    /// The options that mean nothing with it, and what to do instead.
    fn excluded(self) -> &'static [(&'static str, &'static str)] {
        const OVERFLOW: (&str, &str) = (
            "overflow",
            "what there is no room for stays in the stream until there is, so nothing overflows; remove \
                `overflow`",
        );
        const SHARDED: (&str, &str) = (
            "sharded",
            "a stream is read in one way, whatever carries what is published beside it; remove `sharded`",
        );
        match self {
            Self::Broadcast => &[
                (
                    "group",
                    "a broadcast goes to every process, and only a queue has groups; write `delivery = \
                        \"queue\"`, or remove `group`",
                ),
                (
                    "dead_letter",
                    "a broadcast is not kept, and only a queue has dead letters; write `delivery = \
                        \"queue\"`, or remove `dead_letter`",
                ),
                (
                    "start",
                    "a broadcast has no past to start from; write `delivery = \"queue\"` or \
                        `\"resumable\"`, or remove `start`",
                ),
                (
                    "dedupe",
                    "the messages of a broadcast have no ids to remember; write `delivery = \"queue\"` or \
                        `\"resumable\"`, or remove `dedupe`",
                ),
            ],
            Self::Resumable => &[
                (
                    "group",
                    "every process gets what is resumable, and only a queue has groups; write `delivery = \
                        \"queue\"`, or remove `group`",
                ),
                (
                    "dead_letter",
                    "only a queue has dead letters; write `delivery = \"queue\"`, or remove `dead_letter`",
                ),
                OVERFLOW,
                SHARDED,
            ],
            Self::Queue => &[
                OVERFLOW,
                SHARDED,
                ("resync", "a queue has no gaps: what is not handled now is handled later; remove `resync`"),
                (
                    "resync_every",
                    "a queue has no gaps: what is not handled now is handled later; remove `resync_every`",
                ),
            ],
        }
    }
}

impl ToTokens for Mode {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        Ident::new(&format!("{self:?}"), Span::call_site()).to_tokens(tokens);
    }
}

/// Redis has no patterns of sharded channels. What a `#[channel]` type stands for is known at start.
fn read_sharded(options: &Options, channels: Option<&Channels>, mistakes: &mut Mistakes) -> bool {
    let sharded = options.flag("sharded", mistakes);
    if let (true, Some(Channels::Texts { texts, .. })) = (sharded, channels) {
        let kind = |text: &LitStr| Pattern::of(text).map(|pattern| pattern.kind);
        for text in texts.iter().filter(|text| kind(text).is_ok_and(|kind| kind != Kind::Exact)) {
            let message = format!(
                "{:?} is not one channel, and sharded channels have no patterns; name each channel",
                text.value()
            );
            mistakes.add(text, message);
        }
    }
    sharded
}

/// A group becomes a part of keys in Redis.
fn read_group(value: &Value) -> syn::Result<LitStr> {
    let group = value.text()?;
    let is_sound = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if group.value().is_empty() || !group.value().chars().all(is_sound) {
        return Err(value.error(
            "a group is a word of ASCII letters, digits and the characters `-`, `_`, `.` and `:`, such as \
                \"billing\"",
        ));
    }
    Ok(group)
}

/// Dead letters are announced on one channel.
fn read_dead_letter(value: &Value) -> syn::Result<LitStr> {
    let channel = value.channel()?;
    let what = match Pattern::of(&channel)?.kind {
        Kind::Exact => return Ok(channel),
        Kind::Template => "template",
        Kind::Glob => "glob",
    };
    Err(value.error(format_args!(
        "{:?} is a {what}, and all dead letters are announced on one channel; write its name, such as \
            \"orders.dead\"",
        channel.value()
    )))
}
