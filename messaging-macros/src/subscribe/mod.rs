//! `#[subscribe]` on a free function: a `Handler` that calls it, and its descriptor.

mod delivery;
pub(crate) mod handler;
pub(crate) mod options;
mod order;
mod settings;

use proc_macro2::{Span, TokenStream};
use quote::quote;

use crate::descriptor::Runtime;
use crate::function::Function;
use crate::mistakes::Mistakes;
use handler::Call;
use options::Subscription;

pub(crate) fn expand(
    arguments: TokenStream,
    item: TokenStream,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let subscription = Subscription::read(arguments, Span::call_site(), &Runtime::default(), mistakes);
    let function = Function::read(item, "`#[subscribe]`", mistakes)?;
    if let Some(receiver) = function.receiver() {
        mistakes.add(
            receiver,
            "a handler with `self` needs its service: write `#[subscribers]` on the impl around it",
        );
        return None;
    }
    function.check("a handler", mistakes);
    let subscription = subscription?;
    let parameters = handler::parameters(&function.arguments(), &subscription, mistakes);

    let runtime = &subscription.runtime;
    let name = &function.sig.ident;
    let call = Call { runtime, parameters: &parameters, name, returned: function.returned(), service: None };
    let method = call.method();
    let one_payload = call.one_payload();
    let descriptor =
        handler::descriptor(&subscription, &function.name(), &call.needs(), |path| quote!(#path));
    let cfgs = function.cfgs();
    Some(quote! {
        #function

        #(#cfgs)*
        const _: () = {
            #[derive(::core::default::Default)]
            struct __Handler;

            #[automatically_derived]
            impl #runtime::Handler for __Handler {
                #method
            }

            impl __Handler {
                const DESCRIPTOR: #runtime::HandlerDescriptor = #descriptor;
            }

            #one_payload

            #runtime::inventory::submit! {
                #runtime::Descriptor::Handler(&__Handler::DESCRIPTOR)
            }
        };
    })
}
