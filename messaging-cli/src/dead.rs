//! `dead`: what groups have given up: looking at it, giving it to them again, removing it.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use futures_util::{StreamExt as _, TryStreamExt as _};
use messaging_core::{DeadLetter, DeadLetters, ErrorKind, Messaging};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::input::{self, confirm};
use crate::json;
use crate::output::{
    BOLD, Cell, DIM, PLAIN, RED, Table, ago, count, counted, moment, note, out, paint, plain, say, say_json,
};
use crate::progress::Progress;

/// How many dead letters are read at once.
const PAGE: usize = 500;
/// How many are replayed or removed at the same time.
const AT_ONCE: usize = 32;

/// What groups of queue handlers have given up
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    List(List),
    Show(Show),
    Replay(Replay),
    Purge(Purge),
}

/// Show the dead letters of a group, the oldest of each stream first; without a group, which groups have some
#[derive(Args, Debug)]
pub(crate) struct List {
    /// The group
    group: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: usize,
    /// One JSON object for each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    which: Which,
}

/// Show a dead letter with its payload, its headers and its error
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The group
    group: String,
    /// Which, as `dead list` shows it; the part behind @ will do
    id: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Give dead letters to their group again, with all their attempts before them
#[derive(Args, Debug)]
pub(crate) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
}

/// Remove dead letters for good
#[derive(Args, Debug)]
pub(crate) struct Purge {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Args, Debug)]
struct Chosen {
    /// The group
    group: String,
    /// Which, as `dead list` shows them; the part behind @ will do
    #[arg(required_unless_present_any = ["all", "channel", "error", "older_than"], conflicts_with_all = ["all", "channel", "error", "older_than"])]
    id: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["channel", "error", "older_than"])]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Which {
    /// Only those of this channel, template or glob
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only those whose error has this text in it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    error: Option<String>,
    /// Only those that were given up longer ago than this
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    older_than: Option<Duration>,
}

/// A condition for dead letters, ready for use.
struct Filter<'w> {
    pattern: Option<messaging_core::Pattern>,
    error: Option<&'w str>,
    before: Option<SystemTime>,
}

impl Which {
    fn filter(&self) -> Result<Filter<'_>, Failure> {
        let pattern = self.channel.as_deref().map(messaging_core::Pattern::parse).transpose()?;
        let before =
            self.older_than.map(|span| SystemTime::now().checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH));
        Ok(Filter { pattern, error: self.error.as_deref(), before })
    }
}

impl Filter<'_> {
    fn takes(&self, letter: &DeadLetter) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(letter.channel()))
            && self.error.is_none_or(|text| letter.error().contains(text))
            && self.before.is_none_or(|before| letter.failed_at() < before)
    }
}

#[derive(Serialize)]
struct Line<'l> {
    id: String,
    group: &'l str,
    channel: &'l str,
    handler: &'l str,
    attempts: u32,
    error: &'l str,
    failed_at: String,
    published_at: String,
    event_id: &'l str,
    headers: std::collections::BTreeMap<&'l str, &'l str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl<'l> Line<'l> {
    fn of(letter: &'l DeadLetter, group: &'l str) -> Self {
        let payload = json::read(letter.payload());
        Self {
            id: letter.id().to_string(),
            group,
            channel: letter.channel(),
            handler: letter.handler(),
            attempts: letter.attempts(),
            error: letter.error(),
            failed_at: moment(letter.failed_at()),
            published_at: moment(letter.published_at()),
            event_id: letter.event_id().as_str(),
            headers: letter.headers().iter().collect(),
            text: payload.is_none().then(|| String::from_utf8_lossy(letter.payload()).into_owned()),
            payload,
        }
    }
}

impl Dead {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        match self {
            Self::List(list) => list.run(&target.connect().await?).await,
            Self::Show(show) => show.run(&target.connect().await?).await,
            Self::Replay(replay) => replay.chosen.run(target, Act::Replay).await,
            Self::Purge(purge) => purge.chosen.run(target, Act::Purge).await,
        }
    }
}

impl List {
    async fn run(&self, messaging: &Messaging) -> Result<Code, Failure> {
        let Some(group) = &self.group else { return self.groups(messaging).await };
        let filter = self.which.filter()?;
        let dead = messaging.dead_letters(group);
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut more = false;
        let mut page = dead.page(None, PAGE).await?;
        while let Some(last) = page.last().map(|letter| letter.id().clone()) {
            letters.extend(page.into_iter().filter(|letter| filter.takes(letter)));
            if letters.len() > self.limit {
                more = true;
                break;
            }
            page = dead.page(Some(&last), PAGE).await?;
        }
        letters.truncate(self.limit);
        if self.json {
            for letter in &letters {
                say_json(&Line::of(letter, group))?;
            }
        } else if !letters.is_empty() {
            let mut table = Table::new(3, &["ID", "AGE", "CHANNEL", "ATTEMPTS", "ERROR"]).last_is_text();
            for letter in &letters {
                let failed = letter.failed_at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                table.row([
                    letter.id().to_string().into(),
                    ago(Some(failed.as_millis() as u64)).into(),
                    letter.channel().as_str().into(),
                    count(letter.attempts().into()).into(),
                    Cell(shortened(letter.error(), 100), RED),
                ]);
            }
            table.write(&mut out())?;
        }
        if more {
            let all = dead.count().await?;
            note(&format!(
                "the first {} of {}; --limit shows more",
                letters.len(),
                counted(all, "dead letter")
            ));
        }
        if letters.is_empty() {
            note(&format!("the group {group} has no such dead letters"));
            return Ok(Code::Unwell);
        }
        Ok(Code::Well)
    }

    async fn groups(&self, messaging: &Messaging) -> Result<Code, Failure> {
        if self.which.channel.is_some() || self.which.error.is_some() || self.which.older_than.is_some() {
            return Err(Failure::usage(
                "--channel, --error and --older-than go with a group; `messaging dead list` shows the groups",
            ));
        }
        let groups = messaging.operator().dead_letters().await?;
        if self.json {
            for (group, dead) in &groups {
                say_json(&serde_json::json!({ "group": group, "dead": dead }))?;
            }
        } else if !groups.is_empty() {
            let mut table = Table::new(1, &["GROUP", "DEAD"]);
            for (group, dead) in &groups {
                table.row([group.as_str().into(), count(*dead).into()]);
            }
            table.write(&mut out())?;
        }
        if groups.is_empty() {
            note("no group has dead letters");
            return Ok(Code::Unwell);
        }
        Ok(Code::Well)
    }
}

impl Show {
    async fn run(&self, messaging: &Messaging) -> Result<Code, Failure> {
        let dead = messaging.dead_letters(&self.group);
        let letter = find(&dead, &self.group, std::slice::from_ref(&self.id)).await?.remove(0);
        if self.json {
            say_json(&Line::of(&letter, &self.group))?;
            return Ok(Code::Well);
        }
        let mut rows = vec![
            ("id", letter.id().to_string()),
            ("group", self.group.clone()),
            ("channel", letter.channel().to_string()),
            ("handler", letter.handler().to_owned()),
            ("attempts", letter.attempts().to_string()),
            ("given up", moment(letter.failed_at())),
            ("published", moment(letter.published_at())),
            ("event id", letter.event_id().to_string()),
        ];
        rows.extend(letter.headers().iter().map(|(name, value)| ("header", format!("{name}: {value}"))));
        for (name, value) in rows {
            say(&format!("{} {}", paint(DIM, &format!("{name:>9}")), paint(PLAIN, &plain(&value))))?;
        }
        for (number, line) in letter.error().lines().enumerate() {
            let name = if number == 0 { "error" } else { "" };
            say(&format!("{} {}", paint(DIM, &format!("{name:>9}")), paint(RED, &plain(line))))?;
        }
        say(&paint(BOLD, "payload"))?;
        match json::read(letter.payload()) {
            Some(json) => say(&json::laid_out(&json))?,
            None => say(&plain(&String::from_utf8_lossy(letter.payload())))?,
        }
        Ok(Code::Well)
    }
}

#[derive(Clone, Copy)]
enum Act {
    Replay,
    Purge,
}

impl Act {
    fn verb(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Purge => "purge",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Purge => "purged",
        }
    }

    /// Whether it was there.
    async fn apply(self, dead: &DeadLetters, letter: &DeadLetter) -> Result<bool, Failure> {
        match self {
            Self::Purge => Ok(dead.purge(letter.id()).await?),
            Self::Replay => match dead.replay(letter.id()).await {
                // Somebody else was first.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                replayed => Ok(replayed.map(|()| true)?),
            },
        }
    }
}

impl Chosen {
    async fn run(&self, target: &Target, act: Act) -> Result<Code, Failure> {
        let filter = self.which.filter()?;
        let messaging = target.connect().await?;
        let dead = messaging.dead_letters(&self.group);
        let done = if self.id.is_empty() {
            let many = dead.count().await?;
            if many > 0 {
                let which = if self.all {
                    counted(many, "dead letter")
                } else {
                    format!("those of {} that fit", counted(many, "dead letter"))
                };
                let for_good = if matches!(act, Act::Purge) { " for good" } else { "" };
                confirm(&format!("{} {which} of {}{for_good}", act.verb(), self.group), self.yes).await?;
            }
            self.all_that_fit(&dead, &filter, act, many).await?
        } else {
            let letters = find(&dead, &self.group, &self.id).await?;
            if letters.len() > 1 {
                let what = format!(
                    "{} {} of {}",
                    act.verb(),
                    counted(letters.len() as u64, "dead letter"),
                    self.group
                );
                confirm(&what, self.yes).await?;
            }
            let mut done = 0;
            for letter in &letters {
                done += u64::from(act.apply(&dead, letter).await?);
            }
            done
        };
        if self.json {
            say_json(&serde_json::json!({ "group": self.group, (act.done()): done }))?;
        } else {
            say(&format!("{} {}", act.done(), counted(done, "dead letter")))?;
        }
        Ok(if done > 0 { Code::Well } else { Code::Unwell })
    }

    /// Goes through them once: what dies again meanwhile comes behind, and is left there.
    async fn all_that_fit(
        &self,
        dead: &DeadLetters,
        filter: &Filter<'_>,
        act: Act,
        many: u64,
    ) -> Result<u64, Failure> {
        let mut progress = Progress::new(act.done(), many);
        let (mut done, mut seen, mut after) = (0, 0, None);
        while seen < many {
            let page = dead.page(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id().clone());
            let page: Vec<_> = page.into_iter().take((many - seen) as usize).collect();
            seen += page.len() as u64;
            let fitting = page.iter().filter(|letter| filter.takes(letter));
            let acting = futures_util::stream::iter(fitting).map(|letter| act.apply(dead, letter));
            let mut acting = acting.buffer_unordered(AT_ONCE);
            while let Some(was_there) = acting.try_next().await? {
                done += u64::from(was_there);
                progress.show(done);
            }
        }
        progress.end();
        Ok(done)
    }
}

/// The dead letters of these ids.
async fn find(dead: &DeadLetters, group: &str, ids: &[String]) -> Result<Vec<DeadLetter>, Failure> {
    let mut found: Vec<Vec<DeadLetter>> = ids.iter().map(|_| Vec::new()).collect();
    let mut page = dead.page(None, PAGE).await?;
    while let Some(last) = page.last().map(|letter| letter.id().clone()) {
        for letter in page {
            let whole = letter.id().to_string();
            let is_it = |id: &String| *id == whole || whole.rsplit('@').next() == Some(id);
            if let Some(place) = ids.iter().position(is_it) {
                found[place].push(letter);
            }
        }
        page = dead.page(Some(&last), PAGE).await?;
    }
    let one = |(id, letters): (&String, Vec<DeadLetter>)| match letters.len() {
        0 => Err(Failure::new(
            Code::Unwell,
            format!(
                "the group {group} has no dead letter {id}: it was replayed or purged, or is older than 14 days; `messaging dead list {group}` shows them"
            ),
        )),
        1 => Ok(letters),
        _ => Err(Failure::usage(format!("{id} is in several streams; give the whole id, quoted"))),
    };
    let found: Vec<Vec<DeadLetter>> = ids.iter().zip(found).map(one).collect::<Result<_, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// The first line of an error, not too long.
fn shortened(error: &str, most: usize) -> String {
    let line = error.lines().next().unwrap_or_default();
    if line.chars().count() <= most {
        line.to_owned()
    } else {
        line.chars().take(most - 1).chain(['…']).collect()
    }
}
