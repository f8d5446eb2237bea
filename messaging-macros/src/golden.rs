//! What the attributes expand to, for reading: `golden/<name>.rs` becomes `golden/<name>.expanded.rs`. After a change,
//! `UPDATE_EXPECT=1 cargo test -p messaging-macros` writes them anew; read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, ImplItem, Item, Meta};

use crate::{channel, event_config, front, redis_cache, subscribe, subscribers, subscription};

#[test]
fn expansions() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut inputs: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    for input in inputs {
        let file = syn::parse_file(&fs::read_to_string(&input).unwrap()).unwrap();
        let items = file.items.into_iter().map(expand_item);
        let expanded =
            syn::parse2(quote!(#(#items)*)).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
        expect_file![input.with_extension("expanded.rs")].assert_eq(&prettyplease::unparse(&expanded));
    }
}

/// Expands the attribute of an item or of an impl's methods.
fn expand_item(mut item: Item) -> TokenStream {
    let attrs = match &mut item {
        Item::Fn(function) => &mut function.attrs,
        Item::Struct(structure) => &mut structure.attrs,
        Item::Impl(block) => {
            if block.attrs.is_empty() {
                for method in &mut block.items {
                    let ImplItem::Fn(function) = method else { continue };
                    let attr = function.attrs.remove(0);
                    *method = ImplItem::Verbatim(expand(&attr, method.to_token_stream()));
                }
                return item.into_token_stream();
            }
            &mut block.attrs
        }
        _ => return item.into_token_stream(),
    };
    let attr = attrs.remove(0);
    expand(&attr, item.into_token_stream())
}

fn expand(attr: &Attribute, item: TokenStream) -> TokenStream {
    let arguments = match &attr.meta {
        Meta::List(list) => list.tokens.clone(),
        _ => TokenStream::new(),
    };
    let name = attr.path().require_ident().unwrap().to_string();
    let expand = match &*name {
        "channel" => channel::expand,
        "event_config" => event_config::expand,
        "redis_cache" => redis_cache::expand,
        "subscribe" => subscribe::expand,
        "subscribers" => subscribers::expand,
        "subscription" => subscription::expand,
        other => panic!("there is no attribute {other}"),
    };
    front::run(arguments, item, expand, front::item)
}
