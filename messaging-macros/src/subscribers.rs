//! `#[subscribers]` on an inherent impl: one `Handler` for each method with `#[subscribe]`, called on the instance
//! that the service was given, and the list of them for instances that are started by hand.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, ItemImpl, Meta, Path, Type};

use crate::descriptor::Runtime;
use crate::function::{Argument, Function, is_shared_reference};
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::subscribe::handler::{self, Call};
use crate::subscribe::options::Subscription;
use crate::types::{below, without_self};
use crate::value::split;

/// The impl without our markers, and what others need of it.
pub(crate) fn bare(arguments: &TokenStream, item: TokenStream) -> TokenStream {
    let Ok(mut block) = syn::parse2::<ItemImpl>(item.clone()) else { return item };
    take_markers(&mut block);
    if block.trait_.is_some() || !block.generics.params.is_empty() {
        return block.into_token_stream();
    }
    let runtime = Runtime::of_refused(arguments);
    let service = &block.self_ty;
    quote! {
        #block

        #[automatically_derived]
        impl #runtime::Subscribers for #service {
            fn handlers() -> ::std::vec::Vec<#runtime::HandlerDescriptor> {
                ::core::unreachable!()
            }
        }
    }
}

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let (is_manual, runtime) = read_options(arguments, mistakes);
    let mut block = match syn::parse2::<ItemImpl>(item.clone()) {
        Ok(block) => block,
        Err(error)
            if item.into_iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == "impl")) =>
        {
            mistakes.note(error);
            return None;
        }
        Err(_) => {
            mistakes.add_at(Span::call_site(), "`#[subscribers]` stands on an `impl` block");
            return None;
        }
    };
    check_block(&block, is_manual, mistakes);
    let methods = take_markers(&mut block);
    if methods.is_empty() {
        mistakes.add(
            &block.self_ty,
            "no method of this impl has `#[subscribe(\"…\")]`; mark those that handle messages",
        );
    }
    let methods: Vec<_> =
        methods.into_iter().map(|method| method.expand(&block, &runtime, mistakes)).collect();
    let methods: Vec<Expanded> = methods.into_iter().collect::<Option<_>>()?;

    let (impl_generics, _, where_clause) = block.generics.split_for_impl();
    let service = &block.self_ty;
    let items = methods.iter().map(|method| &method.items);
    let descriptors = methods
        .iter()
        .map(|Expanded { cfgs, handler, .. }| quote!(#(#cfgs)* #handler::<#service>::DESCRIPTOR));
    let submits = (!is_manual).then(|| {
        let submits = methods.iter().map(|Expanded { cfgs, handler, .. }| {
            quote! {
                #(#cfgs)*
                #runtime::inventory::submit! {
                    #runtime::Descriptor::Handler(&#handler::<#service>::DESCRIPTOR)
                }
            }
        });
        quote!(#(#submits)*)
    });
    Some(quote! {
        #block

        const _: () = {
            #(#items)*

            #[automatically_derived]
            impl #impl_generics #runtime::Subscribers for #service #where_clause {
                fn handlers() -> ::std::vec::Vec<#runtime::HandlerDescriptor> {
                    ::core::convert::Into::into([#(#descriptors),*])
                }
            }

            #submits
        };
    })
}

fn read_options(arguments: TokenStream, mistakes: &mut Mistakes) -> (bool, Runtime) {
    let segments = split(arguments, mistakes);
    let options = Options::with_bare_words(segments, &["manual", "crate"], &["manual"], mistakes);
    (options.flag("manual", mistakes), Runtime::of(&options, mistakes))
}

fn check_block(block: &ItemImpl, is_manual: bool, mistakes: &mut Mistakes) {
    if let Some((path, _)) = &block.trait_ {
        mistakes.add(
            path,
            "`#[subscribers]` stands on an impl of the type itself, not of a trait; move the \
            handlers into `impl Type { … }`",
        );
    }
    let mut lifetimes = block.generics.lifetimes().peekable();
    if lifetimes.peek().is_some() {
        for lifetime in lifetimes {
            mistakes.add(
                lifetime,
                "a service lives as long as its handlers run, so it cannot borrow; own \
                the data, or share it with `Arc`",
            );
        }
    } else if !is_manual && !block.generics.params.is_empty() {
        let message = "handlers of a generic service cannot start by themselves, because nothing says for \
            which types; write `#[subscribers(manual)]` and start each instance with \
            `messaging.subscriber().service(x)`";
        mistakes.add(&block.generics.params, message);
    }
}

/// A method with its `#[subscribe]`.
struct Method {
    function: Function,
    marker: Attribute,
    /// A method can have several.
    position: usize,
}

/// Takes the `#[subscribe]` attributes off the methods.
fn take_markers(block: &mut ItemImpl) -> Vec<Method> {
    let mut methods = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(method) = item else { continue };
        let is_marker =
            |attr: &Attribute| attr.path().segments.last().is_some_and(|last| last.ident == "subscribe");
        let (markers, attrs) = method.attrs.drain(..).partition::<Vec<_>, _>(is_marker);
        method.attrs = attrs;
        for (position, marker) in markers.into_iter().enumerate() {
            let function = syn::parse2(method.to_token_stream()).expect("a method is a function");
            methods.push(Method { function, marker, position });
        }
    }
    methods
}

/// What one method turns into.
struct Expanded {
    /// The type that implements `Handler`; generic over the service.
    handler: Ident,
    items: TokenStream,
    cfgs: Vec<Attribute>,
}

impl Method {
    fn expand(&self, block: &ItemImpl, runtime: &Runtime, mistakes: &mut Mistakes) -> Option<Expanded> {
        let Self { function, marker, position } = self;
        let arguments = match &marker.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        let subscription = Subscription::read(arguments, marker.path().span(), runtime, mistakes);
        function.check("a handler", mistakes);
        match function.receiver() {
            Some(receiver) if is_shared_reference(receiver) => {}
            Some(receiver) => mistakes.add(receiver, "handlers share their service; take `&self`"),
            None => mistakes.add(
                &function.sig.ident,
                "a handler in `#[subscribers]` takes `&self`; without \
                it, make it a free function with `#[subscribe]`",
            ),
        }
        let subscription = subscription?;
        let service = &block.self_ty;
        let arguments: Vec<Argument> = function
            .arguments()
            .into_iter()
            .map(|argument| Argument { ty: without_self(argument.ty, service), ..argument })
            .collect();
        let parameters = handler::parameters(&arguments, &subscription, mistakes);

        let runtime = &subscription.runtime;
        let name = &function.sig.ident;
        let handler = match position {
            0 => format_ident!("__Handler_{}", name.unraw(), span = Span::call_site()),
            _ => format_ident!("__Handler_{}_{position}", name.unraw(), span = Span::call_site()),
        };
        let call = Call {
            runtime,
            parameters: &parameters,
            name,
            returned: without_self(function.returned(), service),
            service: Some(service),
        };
        let method = call.method();
        let needs = call.needs();
        let one_payload = block.generics.params.is_empty().then(|| call.one_payload());
        let descriptor = handler::descriptor(
            &subscription,
            &format!("{}::{}", type_name(service), function.name()),
            &needs,
            |path| resync_path(path, service),
        );
        let (impl_generics, _, where_clause) = block.generics.split_for_impl();
        let cfgs: Vec<Attribute> = function.cfgs().into_iter().cloned().collect();
        let items = quote! {
            #(#cfgs)*
            #[allow(non_camel_case_types)]
            struct #handler<S>(::core::marker::PhantomData<fn() -> S>);

            #(#cfgs)*
            #[automatically_derived]
            impl<S> ::core::default::Default for #handler<S> {
                fn default() -> Self {
                    Self(::core::marker::PhantomData)
                }
            }

            #(#cfgs)*
            #[automatically_derived]
            impl #impl_generics #runtime::Handler for #handler<#service> #where_clause {
                #method
            }

            #(#cfgs)*
            impl #impl_generics #handler<#service> #where_clause {
                const DESCRIPTOR: #runtime::HandlerDescriptor = #descriptor;
            }

            #one_payload
        };
        Some(Expanded { handler, items, cfgs })
    }
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.unraw().to_string()),
        Type::Group(group) => Some(type_name(&group.elem)),
        Type::Paren(paren) => Some(type_name(&paren.elem)),
        _ => None,
    }
    .unwrap_or_else(|| ty.to_token_stream().to_string().replace(' ', ""))
}

fn resync_path(path: &Path, service: &Type) -> TokenStream {
    if path.segments.len() > 1 && path.segments[0].ident == "Self" {
        return below(path, service);
    }
    path.to_token_stream()
}
