//! `durable` of a model: how much of its events is kept, and which field is their key.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use super::model::{Field, Model};
use crate::constants::{DurationTokens, non_zero, option, updated};
use crate::descriptor::Runtime;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::value::{Value, ValueKind};

/// As in the runtime's `Durability`.
const MOST_PARTITIONS: u16 = 1_024;

/// What is not given keeps the runtime's default.
#[derive(Default)]
pub(super) struct Durable<'m> {
    pub(super) key: Option<&'m Field>,
    max_len: Option<NonZeroU64>,
    max_age: Option<Duration>,
    partitions: Option<NonZeroU16>,
    wait_replicas: Option<NonZeroU32>,
}

impl<'m> Durable<'m> {
    /// `durable`, or `durable = { … }`.
    pub(super) fn read(options: &Options, model: &'m Model, mistakes: &mut Mistakes) -> Option<Self> {
        const EXAMPLE: &str = "{ max_age = \"24h\" }";
        if options.is_bare("durable") {
            return Some(Self::default());
        }
        let value = &options.get("durable")?.value;
        if !matches!(value.kind, ValueKind::Map(_)) {
            let message = format!("write `durable` alone, or with a map in braces: `durable = {EXAMPLE}`");
            mistakes.add(value, message);
            return None;
        }
        let known = &["max_len", "max_age", "partitions", "key", "wait_replicas"];
        let entries = Options::of_map(value, known, EXAMPLE, mistakes)?;
        if let (false, Some(entry)) = (entries.has("key"), entries.get("partitions")) {
            let message = "`partitions` needs `key = field`: events with the same key go to the same \
                partition, and keep their order there";
            mistakes.add(&entry.name, message);
        }
        Some(Self {
            key: entries.optional("key", mistakes, |value| model.named(value)),
            max_len: entries.optional("max_len", mistakes, Value::count),
            max_age: entries.optional("max_age", mistakes, read_max_age),
            partitions: entries.optional("partitions", mistakes, read_partitions),
            wait_replicas: entries.optional("wait_replicas", mistakes, Value::count),
        })
    }

    /// The constant `ModelDurability`.
    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        let Self { key, max_len, max_age, partitions, wait_replicas } = self;
        let mut durability = quote!(#runtime::Durability::DEFAULT);
        if max_len.is_some() || max_age.is_some() {
            let retention = updated(
                &quote!(#runtime::Retention),
                &[
                    ("max_len", max_len.map(|events| non_zero("NonZeroU64", events.get()))),
                    ("max_age", max_age.map(|age| DurationTokens(age).to_token_stream())),
                ],
            );
            durability.extend(quote!(.retention(#retention)));
        }
        if let Some(partitions) = partitions {
            let partitions = non_zero("NonZeroU16", partitions.get());
            durability.extend(quote!(.partitions(#partitions)));
        }
        if let Some(replicas) = wait_replicas {
            let replicas = non_zero("NonZeroU32", replicas.get());
            durability.extend(quote!(.wait_replicas(#replicas)));
        }
        let key = option(key.map(|field| &field.name));
        quote!(#runtime::ModelDurability { durability: #durability, key: #key })
    }
}

fn read_max_age(value: &Value) -> syn::Result<Duration> {
    let age = value.duration()?;
    if age < Duration::from_secs(1) {
        return Err(
            value.error("events are kept for at least a second; write a longer time, such as \"24h\"")
        );
    }
    Ok(age)
}

fn read_partitions(value: &Value) -> syn::Result<NonZeroU16> {
    let partitions = NonZeroU16::try_from(value.count::<NonZeroU64>()?).ok();
    partitions
        .filter(|partitions| partitions.get() <= MOST_PARTITIONS)
        .ok_or_else(|| value.error("a channel has at most 1,024 partitions"))
}
