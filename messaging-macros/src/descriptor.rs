//! What every descriptor has: the way to the runtime, an id and a location.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{LitStr, Path};

use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::value::{Value, split};

/// Where generated code finds the runtime's parts: `::messaging_core::__private`, for subscriptions
/// `::messaging_gateway::__private`, or below what `crate = …` says.
#[derive(Clone)]
pub(crate) struct Runtime(Path);

impl Runtime {
    pub(crate) fn of(options: &Options, mistakes: &mut Mistakes) -> Self {
        Self::given(options, mistakes).unwrap_or_default()
    }

    /// What `crate = …` says.
    pub(crate) fn given(options: &Options, mistakes: &mut Mistakes) -> Option<Self> {
        options.optional("crate", mistakes, Value::path).map(Self)
    }

    /// The same for an attribute that was refused.
    pub(crate) fn of_refused(arguments: &TokenStream) -> Self {
        Self::given_to_refused(arguments).unwrap_or_default()
    }

    /// What `crate = …` says in an attribute that was refused.
    pub(crate) fn given_to_refused(arguments: &TokenStream) -> Option<Self> {
        let mut ignored = Mistakes::default();
        let segments = split(arguments.clone(), &mut ignored);
        Self::given(&Options::of_attribute(segments, &["crate"], &mut ignored), &mut ignored)
    }

    /// The gateway, which is the runtime of subscriptions.
    pub(crate) fn gateway() -> Self {
        Self(syn::parse_quote!(::messaging_gateway))
    }

    /// The path of the crate itself, where its public items are.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The path of the re-exported serde, as its own attributes want it.
    pub(crate) fn serde(&self) -> String {
        quote!(#self::serde).to_string().replace(' ', "")
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self(syn::parse_quote!(::messaging_core))
    }
}

impl ToTokens for Runtime {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let path = &self.0;
        tokens.extend(quote!(#path::__private));
    }
}

/// The identity of a model, handler or function: `id = "…"`, or where it stands and how it is called.
#[derive(Default)]
pub(crate) struct Identity(Option<LitStr>);

impl Identity {
    pub(crate) fn of(options: &Options, mistakes: &mut Mistakes) -> Self {
        Self(options.optional("id", mistakes, |value| {
            let id = value.text()?;
            if id.value().is_empty() || id.value().contains(char::is_whitespace) {
                return Err(value.error("an id is a word without spaces, such as \"billing::on_order\""));
            }
            Ok(id)
        }))
    }

    /// `name` may be a path below the module: `Type::method`.
    pub(crate) fn or_name(&self, name: &str) -> TokenStream {
        match &self.0 {
            Some(id) => id.to_token_stream(),
            None => {
                let below = format!("::{name}");
                quote!(::core::concat!(::core::module_path!(), #below))
            }
        }
    }
}

/// The attribute's place in the source.
pub(crate) fn location(runtime: &Runtime, attribute: Span) -> TokenStream {
    let file = quote_spanned!(attribute=> ::core::file!());
    let line = quote_spanned!(attribute=> ::core::line!());
    quote!(#runtime::Location { file: #file, line: #line })
}
