//! The command line of the comparison.

use super::plan::{Experiment, When};
use super::stage::Scale;
use std::path::PathBuf;

use crate::job::Failure;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) scale: Scale,
    pub(super) help: bool,
    /// Where the results go too.
    pub(super) json: Option<PathBuf>,
    /// The directory that plots are drawn into.
    pub(super) plots: Option<PathBuf>,
    /// What came out is what is expected from now on.
    pub(super) record: bool,
    /// Other libraries are measured too.
    compare: bool,
    /// Parts of names; empty for all.
    filters: Vec<String>,
}

impl Request {
    pub(super) fn parse(arguments: &[&str]) -> Result<Self, Failure> {
        let mut request = Self {
            scale: Scale::Full,
            help: false,
            json: None,
            plots: None,
            record: false,
            compare: false,
            filters: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--compare" => request.compare = true,
                "--record" => request.record = true,
                "--json" => {
                    let path = arguments.next().ok_or("`--json` needs the path of a file")?;
                    request.json = Some(path.into());
                }
                "--plots" => {
                    let path = arguments.next().ok_or("`--plots` needs the path of a directory")?;
                    request.plots = Some(path.into());
                }
                "--quick" => request.scale = Scale::Quick,
                "-h" | "--help" => request.help = true,
                option if option.starts_with('-') => {
                    return Err(format!("there is no option `{option}`").into());
                }
                filter => request.filters.push(filter.to_owned()),
            }
        }
        Ok(request)
    }

    pub(super) fn wants(&self, name: &str, when: When) -> bool {
        let is_wanted = match when {
            When::Always => true,
            When::Compared => self.compare,
            When::Named => false,
        };
        if self.filters.is_empty() {
            return is_wanted;
        }
        // Who names a part of it that others have too does not mean what has to be built first.
        self.filters.iter().any(|filter| name.starts_with(filter) || is_wanted && name.contains(filter))
    }
}

pub(super) fn help(experiments: &[Experiment]) -> String {
    let names: String = experiments.iter().map(|it| format!("\n    {:<24}{}", it.name, it.about)).collect();
    format!(
        "\
cargo xtask bench [--compare] [--quick] [--json <file>] [--plots <directory>] [--record] [<part of a name>…]

  --compare       other libraries too, which are built or installed first; without it only those whose names begin with a part
  --quick         three repetitions instead of five, and shorter ones
  --json <file>   writes the results there too
  --plots <directory>
                  draws how cost grows there: a picture of each growth-… that is named
  --record        what came out of instructions and allocations is what they may not grow beyond by more than a tenth

Experiments{names}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let request = Request::parse(&["--quick", "latency", "cache"]).unwrap();
        assert_eq!((request.scale, request.help), (Scale::Quick, false));
        let wants = |name| request.wants(name, When::Always);
        assert!(wants("latency-paced") && wants("cache") && !wants("publish"));
        let everything = Request::parse(&[]).unwrap();
        assert!(everything.wants("peer-1", When::Always) && !everything.wants("peer-1", When::Compared));
        let wants_peer =
            |arguments: &[&str], name| Request::parse(arguments).unwrap().wants(name, When::Compared);
        assert!(wants_peer(&["peer"], "peer-queue") && wants_peer(&["peer-queue"], "peer-queue"));
        assert!(!wants_peer(&["queue"], "peer-queue") && wants_peer(&["queue", "--compare"], "peer-queue"));
        assert!(
            wants_peer(&["--compare"], "peer-queue") && !wants_peer(&["--compare", "cache"], "peer-queue")
        );
        let compared = Request::parse(&["--compare"]).unwrap();
        assert!(compared.wants("queue", When::Always) && !compared.wants("growth-keys", When::Named));
        let request = Request::parse(&["--json", "out.json", "queue", "--record"]).unwrap();
        assert_eq!((request.json, request.record), (Some("out.json".into()), true));
        let request = Request::parse(&["growth", "--plots", "docs/performance"]).unwrap();
        assert_eq!(request.plots, Some("docs/performance".into()));
        assert!(request.wants("growth-keys", When::Named) && !request.wants("queue", When::Always));
        assert!(Request::parse(&["--plots"]).unwrap_err().to_string().contains("needs the path"));
        assert!(Request::parse(&["--json"]).unwrap_err().to_string().contains("needs the path"));
        assert_eq!(Request::parse(&["--fast"]).unwrap_err().to_string(), "there is no option `--fast`");
    }
}
