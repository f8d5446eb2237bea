//! `local = …`: how values are also kept in the process.

use std::num::NonZeroUsize;
use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::Lit;

use crate::constants::DurationTokens;
use crate::descriptor::Runtime;
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::value::{Value, ValueKind};

const MAX: usize = 10_000;

/// The layer in the process.
pub(super) struct Local {
    ttl: Duration,
    max: usize,
}

impl Local {
    /// `longest` is the function's own `ttl` as it was written, unless that is wrong itself.
    pub(super) fn read(
        value: &Value,
        longest: Option<(&Value, Duration)>,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let read_ttl = |value: &Value| {
            let ttl = value.duration()?;
            match longest {
                Some((written, longest)) if ttl > longest => Err(value.error(format_args!(
                    "a value is not kept in the process for longer than in Redis; write at most `{}`, or make \
                        `ttl` longer",
                    written.to_token_stream()
                ))),
                _ => Ok(ttl),
            }
        };
        match &value.kind {
            ValueKind::Literal(Lit::Int(_) | Lit::Float(_) | Lit::Str(_)) => {
                Some(Self { ttl: mistakes.keep(read_ttl(value))?, max: MAX })
            }
            ValueKind::Map(_) => {
                let example = "{ ttl = \"5s\", max = 10_000 }";
                let entries = Options::of_map(value, &["ttl", "max"], example, mistakes)?;
                let ttl = entries.required("ttl", "`ttl = \"5s\"`", mistakes, read_ttl);
                let max = entries.optional("max", mistakes, Value::count::<NonZeroUsize>);
                Some(Self { ttl: ttl?, max: max.map_or(MAX, NonZeroUsize::get) })
            }
            _ => {
                let message = "expected how long values are kept in the process, such as \"5s\", or `{ ttl = \
                    \"5s\", max = 10_000 }`";
                mistakes.add(value, message);
                None
            }
        }
    }

    /// The constant `LocalOptions`.
    pub(super) fn tokens(&self, runtime: &Runtime) -> TokenStream {
        let Self { ttl, max } = self;
        let ttl = DurationTokens(*ttl);
        quote!(#runtime::LocalOptions { ttl: #ttl, max: #max })
    }
}
