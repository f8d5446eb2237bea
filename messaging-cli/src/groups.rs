//! `groups`: every group of queue handlers on every stream, and how it keeps up.

use clap::Args;
use messaging_core::GroupReport;

use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::output::{Cell, DIM, PLAIN, RED, Table, YELLOW, count, millis, note, out, say, say_json};

/// Show every stream and group: consumers, what waits, and for how long
///
/// UNREAD is what nobody has read yet, PENDING what a process has in hand, DELAYED what waits for another attempt.
/// OLDEST is the age of the oldest message in hand, IDLE how long ago a consumer has last done something.
#[derive(Args, Debug)]
pub(crate) struct Groups {
    /// Only these groups
    group: Vec<String>,
    /// Show each consumer
    #[arg(long, short = 'c')]
    consumers: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

impl Groups {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let messaging = target.connect().await?;
        let mut groups = messaging.operator().groups().await?;
        if !self.group.is_empty() {
            groups.retain(|report| self.group.contains(&report.group));
        }
        let found = !groups.is_empty();
        if self.json {
            say_json(&groups)?;
        } else if found {
            table(&groups).write(&mut out())?;
            if self.consumers {
                say("")?;
                consumers(&groups).write(&mut out())?;
            }
        } else if self.group.is_empty() {
            note(
                "there are no groups: no queue handler has run on this Redis, or only in another MESSAGING_NAMESPACE",
            );
        } else {
            note(&format!("there is no group {}; without a name, all are shown", self.group.join(" or ")));
        }
        Ok(if found { Code::Well } else { Code::Unwell })
    }
}

pub(crate) fn table(groups: &[GroupReport]) -> Table {
    let mut table = Table::new(
        2,
        &["STREAM", "GROUP", "ALIVE", "UNREAD", "PENDING", "DELAYED", "OLDEST", "IDLE", "DEAD"],
    );
    for report in groups {
        let abandoned = report.alive == 0 && report.lag() > 0;
        let alive = if abandoned { RED } else { PLAIN };
        let dead = if report.dead > 0 { YELLOW } else { PLAIN };
        let more = if report.unread_is_least { "+" } else { "" };
        table.row([
            report.stream.as_str().into(),
            report.group.as_str().into(),
            Cell(count(report.alive), alive),
            Cell(format!("{}{more}", count(report.unread)), PLAIN),
            count(report.pending).into(),
            count(report.delayed).into(),
            millis(report.oldest_pending_ms).into(),
            millis(report.idle_ms).into(),
            Cell(count(report.dead), dead),
        ]);
    }
    table
}

fn consumers(groups: &[GroupReport]) -> Table {
    let mut table = Table::new(3, &["STREAM", "GROUP", "CONSUMER", "PENDING", "IDLE"]);
    for report in groups {
        for consumer in &report.consumers {
            let (name, style) = if consumer.alive {
                (consumer.name.clone(), PLAIN)
            } else {
                (format!("{} (gone)", consumer.name), DIM)
            };
            table.row([
                report.stream.as_str().into(),
                report.group.as_str().into(),
                Cell(name, style),
                count(consumer.pending).into(),
                millis(Some(consumer.idle_ms)).into(),
            ]);
        }
    }
    table
}
