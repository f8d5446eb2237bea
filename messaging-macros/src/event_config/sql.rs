//! `SqlModel`, of the crate `messaging_sql`: how a model with a table is written to it and read from it.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;

use super::column::Column;
use super::local;
use super::model::{Field, Model};
use super::table::Table;
use crate::constants::option;
use crate::place::Place;

pub(super) fn implementation(model: &Model, table: &Table<'_>) -> TokenStream {
    let name = &model.item.ident;
    let key = table.key;
    let (key_type, key_ident) = (&key.ty, &key.ident);
    let stored: Vec<&Column<'_>> = table.columns.iter().filter(|column| column.skip.is_none()).collect();
    let bounds = bounds(&stored);
    let constant = constant(table, &stored);
    let methods = [bind(&stored), accepts(&stored), read(table)];
    quote! {
        #[automatically_derived]
        impl<__Db: ::messaging_sql::Database> ::messaging_sql::SqlModel<__Db> for #name
        where
            #(#bounds,)*
        {
            type Key = #key_type;

            const TABLE: &'static ::messaging_sql::Table = &#constant;

            fn key(&self) -> &Self::Key {
                &self.#key_ident
            }

            #(#methods)*
        }
    }
}

/// What is asked of the fields' types, of each type once: missing implementations are reported at a field's type.
fn bounds(stored: &[&Column<'_>]) -> Vec<TokenStream> {
    let (json, plain): (Vec<&Column<'_>>, Vec<_>) = stored.iter().partition(|column| column.json.is_some());
    let each = |columns: Vec<&Column<'_>>, bound: TokenStream| {
        let mut types = HashSet::new();
        let mut bounds = Vec::new();
        for Column { field: Field { ty, .. }, .. } in columns {
            if types.insert(ty) {
                let bound = Place::of(ty).put(bound.clone());
                bounds.push(quote!(#ty: #bound));
            }
        }
        bounds
    };
    let mut bounds = each(plain, quote!(::messaging_sql::ColumnValue<__Db>));
    bounds.extend(each(json, quote!(::messaging_sql::__private::JsonValue)));
    bounds
}

fn constant(table: &Table<'_>, stored: &[&Column<'_>]) -> TokenStream {
    let Table { name, key, version, .. } = table;
    let columns = stored.iter().map(|Column { field, name, json, generated, .. }| {
        let field = &field.name;
        let (generated, json) = (generated.is_some(), json.is_some());
        quote! {
            ::messaging_sql::Column { field: #field, name: #name, generated: #generated, json: #json }
        }
    });
    let key = &key.name;
    let version = option(version.map(|field| &field.name));
    quote! {
        ::messaging_sql::Table {
            name: #name,
            columns: &[#(#columns),*],
            key: #key,
            version: #version,
        }
    }
}

fn bind(stored: &[&Column<'_>]) -> TokenStream {
    let (wanted, binder) = (local("field"), local("binder"));
    let arms = stored.iter().map(|Column { field, json, .. }| {
        let Field { name, ident, .. } = field;
        match json {
            Some(_) => quote!(#name => #binder.json(&self.#ident),),
            None => quote!(#name => #binder.value(&self.#ident),),
        }
    });
    quote! {
        fn bind(
            &self,
            #wanted: &str,
            #binder: &mut ::messaging_sql::__private::Binder<'_, __Db>,
        ) -> ::messaging_sql::__private::Bound {
            match #wanted {
                #(#arms)*
                _ => #binder.unknown(#wanted),
            }
        }
    }
}

fn accepts(stored: &[&Column<'_>]) -> TokenStream {
    let (wanted, given) = (local("field"), local("given"));
    let arms = stored.iter().filter(|column| column.json.is_none()).map(|Column { field, .. }| {
        let Field { name, ty, .. } = field;
        quote!(#name => ::messaging_sql::__private::accepts::<__Db, #ty>(#given),)
    });
    quote! {
        fn accepts(
            #wanted: &str,
            #given: &::messaging_sql::__private::TypeInfo<__Db>,
        ) -> bool {
            match #wanted {
                #(#arms)*
                _ => false,
            }
        }
    }
}

fn read(table: &Table<'_>) -> TokenStream {
    let (row, given) = (local("row"), local("given"));
    let fields = table.columns.iter().map(|Column { field, skip, json, .. }| {
        let Field { ident, name, ty, cfgs, .. } = field;
        let value = match (skip, json) {
            (Some(_), _) => {
                // A type without `Default` or `Clone` is reported at the field's type.
                let place = Place::of(ty);
                let given = place.put(quote!(#given.map(|#given| &#given.#ident)));
                place.put(quote!(::messaging_sql::__private::skipped(#given)))
            }
            (None, Some(_)) => quote!(#row.json(#name)?),
            (None, None) => quote!(#row.value(#name)?),
        };
        quote!(#(#cfgs)* #ident: #value)
    });
    let argument =
        if table.columns.iter().any(|column| column.skip.is_some()) { quote!(#given) } else { quote!(_) };
    quote! {
        fn read(
            #row: &::messaging_sql::__private::Reader<'_, __Db>,
            #argument: ::core::option::Option<&Self>,
        ) -> ::messaging_sql::__private::Read<Self> {
            ::core::result::Result::Ok(Self {
                #(#fields),*
            })
        }
    }
}
