//! What the ACL allows, feature by feature, and the line that would allow the rest.

use std::collections::{BTreeMap, BTreeSet};

use messaging_core::{Channel, Feature, Messaging, Right};

use super::report::{Report, State};
use super::server::version;
use crate::failure::Failure;

const FEATURES: [(Feature, &str); 8] = [
    (Feature::Publish, "publishing"),
    (Feature::Subscribe, "subscribing"),
    (Feature::Sharded, "sharded channels"),
    (Feature::Durable, "durable channels"),
    (Feature::Queue, "queues"),
    (Feature::Cache, "caching"),
    (Feature::Presence, "presence"),
    (Feature::Operate, "this command"),
];

pub(super) async fn look(
    messaging: &Messaging,
    channel: &Channel,
    keys: &str,
    info: &BTreeMap<String, String>,
    report: &mut Report,
) -> Result<(), Failure> {
    let operator = messaging.operator();
    let user = operator.user();
    let rights = match operator.rights(channel, keys).await {
        Ok(mut rights) => {
            // The next check has another channel of its own.
            if let Some(token) = channel.strip_prefix(super::OWN_CHANNEL) {
                for rule in rights.iter_mut().filter_map(|right| right.rule.as_mut()) {
                    *rule = rule.replace(token, "*");
                }
            }
            rights
        }
        Err(error) => {
            let advice = format!("allow it: ACL SETUSER {user} +multi +exec +discard");
            return report.add("rights", State::Doubtful, &error.to_string(), &[advice]);
        }
    };
    let mut all_rules = BTreeSet::new();
    for (feature, name) in FEATURES {
        // Of an old server, what it lacks has been said.
        let is_old = feature == Feature::Sharded && version(info).is_some_and(|version| version < (7, 0));
        let of = || rights.iter().filter(|right| right.feature == feature);
        let refused: Vec<&Right> = of().filter(|right| right.refusal.is_some()).collect();
        if refused.is_empty() || is_old {
            continue;
        }
        let rules: BTreeSet<&str> = refused.iter().filter_map(|right| right.rule.as_deref()).collect();
        if rules.is_empty() {
            let commands: BTreeSet<_> = refused.iter().map(|right| right.command.as_str()).collect();
            let commands = commands.into_iter().collect::<Vec<_>>().join(", ");
            let text = format!("{name}: this server does not know {commands}");
            report.add("rights", State::Bad, &text, &["upgrade it to 6.2 or later".to_owned()])?;
            continue;
        }
        let whole = refused.len() == of().count();
        let part = if whole { "all of it" } else { "a part of it" };
        // It is needed only by those who use it.
        let state = if feature == Feature::Publish || feature == Feature::Subscribe {
            State::Bad
        } else {
            State::Doubtful
        };
        let rules: Vec<_> = rules.into_iter().collect();
        report.add(
            "rights",
            state,
            &format!("{name}: {part} is refused to the user {user}"),
            &[format!("allow it: ACL SETUSER {user} {}", rules.join(" "))],
        )?;
        all_rules.extend(rules.into_iter().map(str::to_owned));
    }
    if all_rules.is_empty() {
        return report.add(
            "rights",
            State::Good,
            &format!("the user {user} may do everything that is needed"),
            &[],
        );
    }
    let all: Vec<_> = all_rules.into_iter().collect();
    report.add(
        "rights",
        State::Skipped,
        "features that are not used need no rights",
        &[format!("to allow everything: ACL SETUSER {user} {}", all.join(" "))],
    )
}
