//! What `check` has found out, told line by line as it is found.

use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::output::{DIM, GREEN, RED, YELLOW, paint, plain, say, say_json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Good,
    /// It works, and should still be changed.
    Doubtful,
    Bad,
    Skipped,
}

#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    text: String,
    advice: Vec<String>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, findings: Vec::new() }
    }

    /// Notes something, with what to try.
    pub(crate) fn add(
        &mut self,
        what: &'static str,
        state: State,
        text: &str,
        advice: &[String],
    ) -> Result<(), Failure> {
        if !self.json {
            let (style, mark) = match state {
                State::Good => (GREEN, "ok"),
                State::Doubtful => (YELLOW, "!"),
                State::Bad => (RED, "no"),
                State::Skipped => (DIM, "-"),
            };
            let mark = paint(style, &format!("{mark:>2}"));
            say(&format!("{mark}  {what:<12}{}", plain(text)))?;
            for line in advice {
                say(&format!("{:16}{} {}", "", paint(DIM, "→"), plain(line)))?;
            }
        }
        self.findings.push(Finding { what, state, text: text.to_owned(), advice: advice.to_vec() });
        Ok(())
    }

    /// Says the whole, and what code it comes to.
    pub(crate) fn finish(self) -> Result<Code, Failure> {
        let of = |state| self.findings.iter().filter(|finding| finding.state == state).count();
        let (bad, doubtful) = (of(State::Bad), of(State::Doubtful));
        if self.json {
            say_json(&serde_json::json!({ "well": bad == 0, "findings": self.findings }))?;
        } else {
            let line = match (bad, doubtful) {
                (0, 0) => paint(GREEN, "all is well"),
                (0, _) => paint(YELLOW, &format!("it works; look at what is marked with ! ({doubtful})")),
                _ => paint(RED, &format!("something does not work: what is marked with no ({bad})")),
            };
            say(&format!("\n{line}"))?;
        }
        Ok(if bad == 0 { Code::Well } else { Code::Unwell })
    }
}
