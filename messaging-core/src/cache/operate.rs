//! Cached functions of other processes, for whoever looks after them by hand.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use super::rules::{Definition, Rules};
use crate::backend::operate::FamilyFacts;
use crate::error::{Error, ErrorKind, Result};

/// A cached function, as the registry knows it.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) rules: Arc<Rules>,
    pub(crate) facts: FamilyFacts,
}

/// What is under a key.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) value: Option<bytes::Bytes>,
    pub(crate) left: Option<Duration>,
    pub(crate) is_loading: bool,
}

impl Cache {
    /// The functions of this deployment that any process has registered, sorted by their ids.
    pub(crate) async fn registered(&self) -> Result<Vec<Registered>> {
        let written = self.backend.catalog().await?;
        let rules = written.definitions.iter().filter_map(|text| {
            // One that a later version has written is its own business.
            let rules = Definition::from_json(text).and_then(Rules::new).ok()?;
            rules.is_of(&self.config.channel_prefix).then_some(rules)
        });
        let mut rules: Vec<_> = rules.collect();
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<_> = rules.iter().map(|rules| rules.name.as_str()).collect();
        let facts = self.backend.family_facts(&names).await?;
        Ok(rules.into_iter().zip(facts).map(|(rules, facts)| Registered { rules, facts }).collect())
    }

    /// Removes all values of a function of any process.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if none of this id is registered; otherwise what the backend says.
    pub(crate) async fn forget_all_of_any(self: &Arc<Self>, id: &str) -> Result<u64> {
        let mut rules: Vec<_> = self.registered().await?.into_iter().map(|known| known.rules).collect();
        rules.retain(|rules| rules.id() == id);
        if rules.is_empty() {
            let text = format!("no cached function `{id}` with `invalidate_on` is registered");
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        if let Some(rules) = rules.iter().find(|rules| !rules.key.has_literal_head()) {
            let text = format!(
                "the key {:?} of `{id}` begins with a placeholder, so that all of its values cannot be told from the keys of others",
                rules.definition.key()
            );
            return Err(Error::new(ErrorKind::InvalidKey, text).before_sending());
        }
        let forgotten = self.flush_together(&rules).await?;
        self.announce_all().await;
        Ok(forgotten)
    }

    /// Looks under a key as it is without the deployment's prefix.
    pub(crate) async fn kept(&self, key: &str) -> Result<Kept> {
        super::check_literal(key)?;
        let looked = self.backend.look(&self.key(key), true).await?;
        Ok(Kept { value: looked.value, left: looked.left, is_loading: looked.holder.is_some() })
    }
}
