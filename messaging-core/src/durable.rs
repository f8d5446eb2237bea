//! Which channels are durable, and to which stream a message goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::channel::{Channel, Pattern};
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Registry;
use crate::stream::{Durability, StreamInfo, StreamName};

/// How many streams a process may make by naming concrete channels. More of them look like channels with an id in them,
/// and a stream for each id is what a template is for.
const MOST_CONCRETE: usize = 256;

/// The durable channels of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Durables {
    configured: Vec<Configured>,
    /// Templates that this process knows, for channels that are given as text.
    templates: Vec<(Pattern, StreamName)>,
    /// The streams of everything that models and channel types declare, by its text: parsed once.
    declared: HashMap<&'static str, StreamName>,
    /// The concrete channels that have become streams.
    concrete: Mutex<HashSet<String>>,
    prefix: String,
}

#[derive(Debug)]
struct Configured {
    pattern: Pattern,
    stream: StreamName,
    durability: Durability,
}

impl Durables {
    /// # Errors
    /// [`ErrorKind::Configuration`] for settings that cannot work, and for patterns that overlap: a message must not have
    /// the choice between two streams.
    pub(crate) fn new(
        configured: Vec<(Pattern, Durability)>,
        registry: &Registry,
        prefix: &str,
    ) -> Result<Self> {
        for (position, (pattern, durability)) in configured.iter().enumerate() {
            durability.check(pattern.as_str())?;
            if let Some((other, _)) =
                configured[..position].iter().find(|(other, _)| other.may_overlap(pattern))
            {
                let text = format!(
                    "the durable channels {:?} and {:?} overlap; a message on both would not know its stream",
                    other.as_str(),
                    pattern.as_str()
                );
                return Err(Error::new(ErrorKind::Configuration, text));
            }
        }
        for model in &registry.models {
            if let Some(durable) = &model.durable {
                durable.durability.check(model.id)?;
            }
        }
        let of_models = registry.models.iter().flat_map(|model| model.publish.iter());
        let declarations = registry
            .channels
            .iter()
            .map(|channel| channel.template)
            .chain(of_models.flat_map(|(_, channels)| channels.iter().copied()));
        let (mut templates, mut declared) = (Vec::new(), HashMap::new());
        for text in declarations {
            let Ok(pattern) = Pattern::parse(text) else { continue };
            let stream = StreamName::of(&pattern, prefix);
            declared.insert(text, stream.clone());
            if matches!(pattern, Pattern::Template(_)) {
                templates.push((pattern, stream));
            }
        }
        let configured = configured
            .into_iter()
            .map(|(pattern, durability)| Configured {
                stream: StreamName::of(&pattern, prefix),
                pattern,
                durability,
            })
            .collect();
        Ok(Self { configured, templates, declared, concrete: Mutex::default(), prefix: prefix.to_owned() })
    }

    /// The stream of a channel that is durable by configuration.
    pub(crate) fn configured(&self, channel: &str) -> Option<(StreamName, Durability)> {
        let matching = self.configured.iter().find(|configured| configured.pattern.matches(channel))?;
        Some((matching.stream.clone(), matching.durability))
    }

    /// The stream of a channel that its publisher makes durable: that of its template, if it has one.
    pub(crate) fn asked_for(
        &self,
        channel: &Channel,
        template: Option<&str>,
    ) -> Result<(StreamName, Durability)> {
        let configured = self.configured(channel);
        let durability = configured.as_ref().map_or(Durability::DEFAULT, |(_, durability)| *durability);
        if let Some(template) = template {
            return Ok((self.stream_of(template)?, durability));
        }
        if let Some(configured) = configured {
            return Ok(configured);
        }
        if let Some((_, stream)) = self.templates.iter().find(|(pattern, _)| pattern.matches(channel)) {
            return Ok((stream.clone(), durability));
        }
        self.note_concrete(channel)?;
        Ok((StreamName::of(&Pattern::Exact(channel.clone()), &self.prefix), durability))
    }

    /// The stream of a template of ours.
    pub(crate) fn stream_of(&self, template: &str) -> Result<StreamName> {
        if let Some(stream) = self.declared.get(template) {
            return Ok(stream.clone());
        }
        Ok(StreamName::of(&Pattern::parse(template)?, &self.prefix))
    }

    /// All streams that this process may make: of its configuration and of the models that it knows.
    pub(crate) fn all(&self, registry: &Registry) -> Vec<StreamInfo> {
        let mut all: Vec<_> = self
            .configured
            .iter()
            .flat_map(|configured| StreamInfo::all(&configured.stream, &configured.durability))
            .collect();
        for model in &registry.models {
            let Some(durable) = &model.durable else { continue };
            for template in model.publish.iter().flat_map(|(_, channels)| channels.iter()) {
                if let Ok(stream) = self.stream_of(template) {
                    all.extend(StreamInfo::all(&stream, &durable.durability));
                }
            }
        }
        all
    }

    fn note_concrete(&self, channel: &Channel) -> Result<()> {
        let mut concrete = self.concrete.lock().unwrap_or_else(PoisonError::into_inner);
        if concrete.contains(channel.as_str()) {
            return Ok(());
        }
        if concrete.len() >= MOST_CONCRETE {
            let text = format!(
                "{channel:?} would be durable channel number {} without a template; give channels with ids in them a `#[channel(\"…:{{id}}\")]` type, or a pattern with builder.durable(…)",
                MOST_CONCRETE + 1
            );
            return Err(Error::new(ErrorKind::InvalidChannel, text));
        }
        concrete.insert(channel.as_str().to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Retention;

    fn durables(patterns: &[&str]) -> Result<Durables> {
        let configured = patterns
            .iter()
            .map(|pattern| (Pattern::parse(pattern).unwrap(), Durability::from(Retention::DEFAULT)))
            .collect();
        Durables::new(configured, &Registry::empty(), "p.")
    }

    #[test]
    fn patterns_that_overlap_are_refused() {
        assert!(durables(&["orders.*", "invoices.*"]).is_ok());
        let error = durables(&["orders.*", "orders.created"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("\"orders.*\" and \"orders.created\" overlap"), "{error}");
    }

    #[test]
    fn a_message_goes_to_one_stream() {
        let durables = durables(&["orders.*"]).unwrap();
        let stream = |channel: &str, template: Option<&str>| {
            let channel = Channel::new(channel).unwrap();
            durables.asked_for(&channel, template).unwrap().0.to_string()
        };
        assert_eq!(stream("orders.17", Some("orders.{id}")), "p.orders.<>");
        assert_eq!(stream("orders.17", None), "p.orders.*");
        assert_eq!(stream("carts.created", None), "p.carts.created");
        assert!(durables.configured("carts.created").is_none());
    }

    #[test]
    fn a_stream_for_each_id_is_refused() {
        let durables = durables(&[]).unwrap();
        let ask = |number: usize| {
            durables.asked_for(&Channel::new(&format!("orders:{number}")).unwrap(), None).map(drop)
        };
        (0..MOST_CONCRETE).try_for_each(ask).unwrap();
        ask(0).unwrap();
        let error = ask(MOST_CONCRETE).unwrap_err();
        assert!(error.to_string().contains("#[channel("), "{error}");
    }
}
