//! Values that stand in one literal: text, numbers, durations, sizes, shares.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use syn::{Lit, LitStr, Result};

use crate::names::{alternatives, closest};
use crate::value::{Value, ValueKind};

const DURATION: &str =
    "write seconds, such as `30`, or text such as \"250ms\", \"30s\", \"5m\", \"1h\" or \"7d\"";
const SIZE: &str = "write bytes, such as `65536`, or text such as \"64KiB\" or \"16MiB\"";

impl Value {
    /// Text in quotes.
    pub(crate) fn text(&self) -> Result<LitStr> {
        match &self.kind {
            ValueKind::Literal(Lit::Str(text)) => Ok(text.clone()),
            _ => Err(self.error("expected text in quotes")),
        }
    }

    /// A channel, or a list of them with at least one. Whether each is valid is not checked here.
    pub(crate) fn channels(&self) -> Result<Vec<LitStr>> {
        match &self.kind {
            ValueKind::List(items) if items.is_empty() => {
                Err(self.error("this list is empty; name at least one channel"))
            }
            ValueKind::List(items) => combined(items.iter().map(Self::channel).collect()),
            _ => self.channel().map(|channel| vec![channel]),
        }
    }

    /// One channel. Whether it is valid is not checked here.
    pub(crate) fn channel(&self) -> Result<LitStr> {
        self.text().map_err(|_| self.error("expected a channel in quotes, such as \"camera.created\""))
    }

    /// One of several words in quotes, and what it stands for; `noun` is what such a word is.
    pub(crate) fn choice<T: Copy>(&self, noun: &str, choices: &[(&str, T)]) -> Result<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let all = alternatives(words().map(|word| format!("{word:?}")));
        if let Some(name) =
            self.ident().map(ToString::to_string).filter(|name| words().any(|word| word == name))
        {
            return Err(self.error(format_args!("put quotes around it: {name:?}")));
        }
        let text = self.text().map_err(|_| self.error(format_args!("expected {all}")))?.value();
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        chosen.ok_or_else(|| match closest(&text, words()) {
            Some(meant) => {
                self.error(format_args!("{text:?} is no {noun}; did you mean {meant:?}? write {all}"))
            }
            None => self.error(format_args!("{text:?} is no {noun}; write {all}")),
        })
    }

    /// `true` or `false`.
    pub(crate) fn truth(&self) -> Result<bool> {
        match &self.kind {
            ValueKind::Literal(Lit::Bool(truth)) => Ok(truth.value),
            _ => Err(self.error("expected `true` or `false`")),
        }
    }

    /// A whole number.
    pub(crate) fn number(&self) -> Result<u64> {
        let ValueKind::Literal(Lit::Int(literal)) = &self.kind else {
            return Err(self.error("expected a whole number without quotes"));
        };
        let digits = literal.base10_digits();
        if !literal.suffix().is_empty() {
            return Err(self.error(format_args!("expected a plain number; write `{digits}`")));
        }
        digits.parse().map_err(|_| match digits.starts_with('-') {
            true => self.error("this must not be negative"),
            false => self.error("this number is too large"),
        })
    }

    /// How many: a whole number from 1.
    pub(crate) fn count<T: TryFrom<NonZeroU64>>(&self) -> Result<T> {
        let number = NonZeroU64::new(self.number()?).ok_or_else(|| self.error("this must be at least 1"))?;
        T::try_from(number).map_err(|_| self.error("this number is too large"))
    }

    /// A number with or without a fraction.
    pub(crate) fn fraction(&self) -> Result<f64> {
        let digits = match &self.kind {
            ValueKind::Literal(Lit::Float(number)) if number.suffix().is_empty() => number.base10_digits(),
            ValueKind::Literal(Lit::Int(number)) if number.suffix().is_empty() => number.base10_digits(),
            _ => return Err(self.error("expected a number without quotes, such as `2` or `1.5`")),
        };
        digits.parse().map_err(|error| self.error(error))
    }

    /// A duration that may be zero.
    pub(crate) fn duration_or_zero(&self) -> Result<Duration> {
        match &self.kind {
            ValueKind::Literal(Lit::Int(number)) if number.suffix().is_empty() => {
                self.number().map(Duration::from_secs)
            }
            ValueKind::Literal(Lit::Int(number)) if read_duration(&number.to_string()).is_some() => {
                Err(self.error(format_args!("put quotes around it: \"{number}\"")))
            }
            ValueKind::Literal(Lit::Float(number)) if number.suffix().is_empty() => {
                let millis = number.base10_parse::<f64>()? * 1_000.0;
                Err(self.error(format_args!("a duration has no fraction; write \"{millis}ms\"")))
            }
            ValueKind::Literal(Lit::Str(text)) => {
                let text = text.value();
                read_duration(&text).ok_or_else(|| match text.parse::<u64>() {
                    Ok(_) => self.error(format_args!(
                        "{text:?} has no unit; write \"{text}s\", or `{text}` for seconds"
                    )),
                    Err(_) => self.error(format_args!("{text:?} is not a duration; {DURATION}")),
                })
            }
            _ => Err(self.error(format_args!("expected a duration: {DURATION}"))),
        }
    }

    /// A duration longer than nothing.
    pub(crate) fn duration(&self) -> Result<Duration> {
        match self.duration_or_zero()? {
            Duration::ZERO => Err(self.error("this duration must be longer than zero")),
            duration => Ok(duration),
        }
    }

    /// A number of bytes, more than none.
    pub(crate) fn size(&self) -> Result<NonZeroUsize> {
        let bytes = match &self.kind {
            ValueKind::Literal(Lit::Int(number)) if number.suffix().is_empty() => return self.count(),
            ValueKind::Literal(Lit::Int(number)) if read_size(&number.to_string()).is_some() => {
                return Err(self.error(format_args!("put quotes around it: \"{number}\"")));
            }
            ValueKind::Literal(Lit::Str(text)) => {
                let text = text.value();
                read_size(&text).ok_or_else(|| self.error(format_args!("{text:?} is not a size; {SIZE}")))?
            }
            _ => return Err(self.error(format_args!("expected a size: {SIZE}"))),
        };
        NonZeroUsize::new(bytes).ok_or_else(|| self.error("this must be at least one byte"))
    }

    /// A part of a whole: `0.1` or `"10%"`.
    pub(crate) fn share(&self) -> Result<f64> {
        let share = match &self.kind {
            ValueKind::Literal(Lit::Str(text)) => text
                .value()
                .strip_suffix('%')
                .and_then(|percent| percent.parse::<f64>().ok())
                .map(|it| it / 100.0),
            _ => self.fraction().ok(),
        };
        share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
            self.error("expected a share of the whole between 0 and 1, such as `0.1`, or \"10%\"")
        })
    }
}

/// All values, or all errors.
pub(crate) fn combined<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(results.len());
    let mut errors: Option<syn::Error> = None;
    for result in results {
        match (result, &mut errors) {
            (Ok(value), _) => values.push(value),
            (Err(error), None) => errors = Some(error),
            (Err(error), Some(first)) => first.combine(error),
        }
    }
    errors.map_or(Ok(values), Err)
}

fn read_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn read_size(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(1 << shift)?).ok()
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    number.replace('_', "").parse().ok().map(|number| (number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mistakes::Mistakes;

    fn value(text: &str) -> Value {
        Value::read(text.parse().unwrap(), &mut Mistakes::default()).unwrap()
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("30", Some(30_000)),
            ("1_000", Some(1_000_000)),
            ("\"250ms\"", Some(250)),
            ("\"30s\"", Some(30_000)),
            ("\"5m\"", Some(300_000)),
            ("\"1h\"", Some(3_600_000)),
            ("\"7d\"", Some(604_800_000)),
            ("0", None),
            ("\"0s\"", None),
            ("\"\"", None),
            ("\"30\"", None),
            ("\"s\"", None),
            ("\"1.5s\"", None),
            ("\"1h30m\"", None),
            ("\"30 s\"", None),
            ("\"30S\"", None),
            ("\"300000000000000000d\"", None),
            ("99999999999999999999", None),
            ("30s", None),
            ("1.5", None),
            ("[1]", None),
        ] {
            assert_eq!(value(text).duration().ok(), expected.map(Duration::from_millis), "{text}");
        }
        assert_eq!(value("0").duration_or_zero().unwrap(), Duration::ZERO);
        for (text, advice) in [
            ("30s", "put quotes around it: \"30s\""),
            ("1.5", "a duration has no fraction; write \"1500ms\""),
            ("\"30\"", "\"30\" has no unit; write \"30s\", or `30` for seconds"),
            ("-1", "this must not be negative"),
        ] {
            assert_eq!(value(text).duration().unwrap_err().to_string(), advice);
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("65536", Some(65_536)),
            ("\"64KiB\"", Some(65_536)),
            ("\"16MiB\"", Some(16 << 20)),
            ("\"1GiB\"", Some(1 << 30)),
            ("\"12B\"", Some(12)),
            ("\"64KB\"", None),
            ("\"64\"", None),
            ("0", None),
            ("64KiB", None),
            ("\"99999999999GiB\"", None),
        ] {
            assert_eq!(value(text).size().ok().map(NonZeroUsize::get), expected, "{text}");
        }
    }

    #[test]
    fn shares() {
        for (text, expected) in [
            ("0.1", Some(0.1)),
            ("0", Some(0.0)),
            ("1", Some(1.0)),
            ("\"10%\"", Some(0.1)),
            ("\"2.5%\"", Some(0.025)),
            ("1.5", None),
            ("10", None),
            ("\"150%\"", None),
            ("\"10\"", None),
            ("\"NaN%\"", None),
        ] {
            assert_eq!(value(text).share().ok(), expected, "{text}");
        }
    }
}
