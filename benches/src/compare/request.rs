//! The command line of the comparison.

use super::plan::{Experiment, When};
use super::stage::Scale;
use crate::job::Failure;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) scale: Scale,
    pub(super) help: bool,
    /// Parts of names; empty for all.
    filters: Vec<String>,
}

impl Request {
    pub(super) fn parse(arguments: &[&str]) -> Result<Self, Failure> {
        let mut request = Self { scale: Scale::Full, help: false, filters: Vec::new() };
        for argument in arguments {
            match *argument {
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
        match when {
            When::Always if self.filters.is_empty() => true,
            _ => self.filters.iter().any(|filter| name.contains(filter)),
        }
    }
}

pub(super) fn help(experiments: &[Experiment]) -> String {
    let names: String = experiments.iter().map(|it| format!("\n    {:<24}{}", it.name, it.about)).collect();
    format!(
        "\
cargo xtask bench [--quick] [<part of a name>…]

  --quick    three repetitions instead of five, and shorter ones

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
        assert!(everything.wants("peer-1", When::Always) && !everything.wants("peer-1", When::Named));
        assert!(Request::parse(&["peer"]).unwrap().wants("peer-1", When::Named));
        assert_eq!(Request::parse(&["--fast"]).unwrap_err().to_string(), "there is no option `--fast`");
    }
}
