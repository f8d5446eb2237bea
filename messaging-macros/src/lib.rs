//! wip
mod assertion;
mod channel;
mod descriptor;
mod event_config;
mod front;
mod function;
#[cfg(test)]
mod golden;
mod literal;
mod mistakes;
mod names;
mod operation;
mod options;
mod place;
mod redis_cache;
mod serde_attrs;
mod structure;
mod subscribe;
mod subscribers;
mod template;

use proc_macro::TokenStream;

/// sub
#[proc_macro_attribute]
pub fn subscribe(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), subscribe::expand, front::item).into()
}

/// subs
#[proc_macro_attribute]
pub fn subscribers(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), subscribers::expand, subscribers::bare).into()
}

/// ch
#[proc_macro_attribute]
pub fn channel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), channel::expand, channel::bare).into()
}

/// ev
#[proc_macro_attribute]
pub fn event_config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), event_config::expand, event_config::bare).into()
}

/// rc
#[proc_macro_attribute]
pub fn redis_cache(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), redis_cache::expand, front::item).into()
}
