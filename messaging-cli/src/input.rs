//! What is typed: durations, and the answer to the question whether something is really wanted.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use crate::failure::{Code, Failure};
use crate::output::is_interactive;

/// `30s`, `10m`, `1h 30m`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    seconds
        .map_or_else(|| humantime::parse_duration(text), Ok)
        .map_err(|_| "write a time span such as 250ms, 30s, 10m, 2h or 1d".to_owned())
}

/// A time span after which something is done again.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) { Err("the shortest is 100ms".to_owned()) } else { Ok(interval) }
}

/// Asks on a terminal whether `what` is really wanted; without one, only `--yes` says so.
pub(crate) async fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_interactive() {
        return Err(Failure::usage(format!("{what}: nobody can be asked whether that is wanted; add --yes")));
    }
    let question = format!("{what}? [y/N] ");
    // It blocks, and signals are still to be heard.
    let answer = tokio::task::spawn_blocking(move || {
        let mut error = anstream::stderr();
        let mut answer = String::new();
        write!(error, "{question}").and_then(|()| error.flush())?;
        std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(std::io::Error::other).and_then(|answer| answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Code::Unwell, "not confirmed; nothing was done")),
    }
}
