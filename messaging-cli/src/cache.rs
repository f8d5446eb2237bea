//! `cache`: values and cached functions, looked at and made out of date. All of it through the library, so that no process
//! serves afterwards what was removed.

use std::time::Duration;

use clap::Subcommand;
use messaging_core::{FamilyReport, Messaging};
use serde_json::value::RawValue;

use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::input::confirm;
use crate::json;
use crate::output::{Table, counted, millis, note, out, plain, say, say_json, size, span};

/// Cached values and cached functions
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Show the value under a key
    Get {
        /// The key, without MESSAGING_CACHE_PREFIX
        key: String,
        /// Print a JSON object with the time that it has to live
        #[arg(long)]
        json: bool,
    },
    /// Remove values, so that no process serves them any more
    ///
    /// Keys are removed with the leases of loads that run, so that none of them stores what it has read before; the
    /// processes that keep values in memory are told.
    Invalidate {
        /// Keys, without MESSAGING_CACHE_PREFIX
        #[arg(required_unless_present_any = ["pattern", "family"], conflicts_with_all = ["pattern", "family"])]
        key: Vec<String>,
        /// All keys that match this glob; it goes through all keys of Redis
        #[arg(long, value_name = "GLOB", conflicts_with = "family")]
        pattern: Option<String>,
        /// All values of this cached function; it goes through all keys of Redis
        #[arg(long, value_name = "ID")]
        family: Option<String>,
        /// Do not ask
        #[arg(long, short = 'y', conflicts_with = "key")]
        yes: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the cached functions with `invalidate_on` of all processes
    ///
    /// KEPT is how long a value lives at most, KNOWN how long the function stays registered unless a process renews it.
    Families {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
}

impl Cache {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let messaging = target.connect().await?;
        match self {
            Self::Get { key, json } => get(&messaging, key, *json).await,
            Self::Invalidate { key, pattern, family, yes, json } => {
                let removed = match (pattern, family) {
                    (Some(glob), _) => {
                        let what = format!("invalidate all values whose key matches {glob}");
                        confirm(&what, *yes).await?;
                        Some(messaging.cache("").invalidate_pattern(glob).await?)
                    }
                    (None, Some(id)) => {
                        confirm(&format!("invalidate all values of {id}"), *yes).await?;
                        Some(messaging.operator().invalidate_family(id).await.map_err(|error| {
                            Failure::from(error)
                                .context("invalidate")
                                .hint("`messaging cache families` shows which there are")
                        })?)
                    }
                    (None, None) => {
                        for key in key {
                            messaging.cache("").invalidate(key).await?;
                        }
                        None
                    }
                };
                match (removed, json) {
                    (Some(removed), true) => say_json(&serde_json::json!({ "invalidated": removed }))?,
                    (None, true) => say_json(&serde_json::json!({ "keys": key }))?,
                    (Some(removed), false) => say(&format!("invalidated {}", counted(removed, "value")))?,
                    (None, false) => say(&format!("invalidated {}", counted(key.len() as u64, "key")))?,
                }
                Ok(Code::Well)
            }
            Self::Families { json } => families(&messaging, *json).await,
        }
    }
}

async fn get(messaging: &Messaging, key: &str, as_json: bool) -> Result<Code, Failure> {
    let Some(entry) = messaging.operator().cached(key).await? else {
        if as_json {
            say_json(&serde_json::json!({ "key": key, "value": null, "found": false }))?;
        } else {
            note(&format!("there is nothing under {}", plain(key)));
        }
        return Ok(Code::Unwell);
    };
    let value = json::read(&entry.value);
    let text = String::from_utf8_lossy(&entry.value);
    let left = entry.left.map(|left| left.as_millis() as u64);
    if as_json {
        #[derive(serde::Serialize)]
        struct Line<'v> {
            key: &'v str,
            found: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<&'v RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            text: Option<&'v str>,
            left_ms: Option<u64>,
            loading: bool,
        }
        let text = value.is_none().then_some(&*text);
        let loading = entry.is_loading;
        say_json(&Line { key, found: true, value: value.as_deref(), text, left_ms: left, loading })?;
        return Ok(Code::Well);
    }
    match &value {
        Some(json) => say(&json::laid_out(json))?,
        None => say(&plain(&text))?,
    }
    let life =
        entry.left.map_or_else(|| "without an end".to_owned(), |left| format!("for {} more", span(left)));
    let loading = if entry.is_loading { ", and is being loaded again" } else { "" };
    let shape = if value.is_none() { "; it is not JSON, so that cached functions replace it" } else { "" };
    note(&format!("{}, {life}{loading}{shape}", size(entry.value.len() as u64)));
    Ok(Code::Well)
}

async fn families(messaging: &Messaging, json: bool) -> Result<Code, Failure> {
    let families = messaging.operator().families().await?;
    if json {
        say_json(&families)?;
    } else if !families.is_empty() {
        table(&families).write(&mut out())?;
    } else {
        note(
            "no cached function with `invalidate_on` is registered here; those without are not known to Redis",
        );
    }
    Ok(if families.is_empty() { Code::Unwell } else { Code::Well })
}

pub(crate) fn table(families: &[FamilyReport]) -> Table {
    let mut table = Table::new(3, &["FUNCTION", "KEY", "INVALIDATED ON", "KEPT", "KNOWN"]);
    for family in families {
        table.row([
            family.id.as_str().into(),
            family.key.as_str().into(),
            family.channels.join(" ").into(),
            span(Duration::from_millis(family.keep_ms)).into(),
            millis(family.known_for_ms).into(),
        ]);
    }
    table
}
