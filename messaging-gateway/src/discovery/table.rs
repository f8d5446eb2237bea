//! From what each service declares to what is served: pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::service::RemoteEntity;

/// What is served of all that is declared, and what is not because two declare it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) entities: Vec<RemoteEntity>,
    pub(super) conflicts: Vec<String>,
}

/// An entity that two services declare is served of neither: nobody can tell which of them is meant, and whoever was there
/// first would depend on chance. One of this process stays.
pub(super) fn merge<'a>(
    declared: impl IntoIterator<Item = &'a RemoteEntity>,
    local: &BTreeSet<String>,
) -> Table {
    let mut by_name = BTreeMap::<&str, Vec<&RemoteEntity>>::new();
    for entity in declared {
        by_name.entry(&entity.entity).or_default().push(entity);
    }
    let mut table = Table::default();
    for (name, declarations) in by_name {
        let mut services: Vec<Arc<str>> =
            declarations.iter().map(|entity| Arc::clone(&entity.service)).collect();
        services.sort_unstable();
        let services =
            services.iter().map(|service| format!("`{service}`")).collect::<Vec<_>>().join(" and ");
        match declarations[..] {
            _ if local.contains(name) => table.conflicts.push(format!(
                "entity `{name}` is declared by this process and by {services}; that of this process is served"
            )),
            [only] => table.entities.push(only.clone()),
            _ => table
                .conflicts
                .push(format!("entity `{name}` is declared by {services}; none of them is served")),
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::SlowPolicy;

    fn entity(service: &str, entity: &str) -> RemoteEntity {
        RemoteEntity {
            service: service.into(),
            entity: entity.into(),
            channels: Vec::new(),
            filters: Vec::new(),
            tenant: None,
            send: false,
            presence: false,
            slow: SlowPolicy::default(),
        }
    }

    #[test]
    fn what_two_declare_nobody_is_served() {
        let declared = [
            entity("b", "Shared"),
            entity("a", "Alone"),
            entity("a", "Shared"),
            entity("a", "Ours"),
            entity("b", "Also"),
        ];
        let table = merge(&declared, &BTreeSet::from(["Ours".to_owned(), "Unheard".to_owned()]));
        let served: Vec<_> = table.entities.iter().map(|entity| entity.entity.as_str()).collect();
        assert_eq!(served, ["Alone", "Also"]);
        assert_eq!(
            table.conflicts,
            [
                "entity `Ours` is declared by this process and by `a`; that of this process is served",
                "entity `Shared` is declared by `a` and `b`; none of them is served",
            ]
        );
    }
}
