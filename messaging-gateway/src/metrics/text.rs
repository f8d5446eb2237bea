//! The text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).

use std::collections::BTreeMap;
use std::fmt::Write;

/// What a number means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// The samples of one name; written when it is dropped.
#[derive(Debug)]
pub(super) struct Family<'t> {
    text: &'t mut String,
    name: String,
    kind: Kind,
    help: String,
    samples: BTreeMap<String, u64>,
}

impl Text {
    /// Begins a family. A name comes once in a text.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        Family {
            text: &mut self.0,
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            samples: BTreeMap::new(),
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a number. Those of the same labels are summed up: two of them would make the whole text invalid.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let mut text = String::new();
        for (name, value) in labels {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            escape(value, true, &mut text);
            text.push('"');
        }
        if !text.is_empty() {
            text.push('}');
        }
        let sum = self.samples.entry(text).or_default();
        *sum = sum.saturating_add(value);
    }
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        if self.samples.is_empty() {
            return;
        }
        let Self { text, name, samples, .. } = self;
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        escape(&self.help, false, text);
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = writeln!(text, "\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
}

fn escape(value: &str, is_label: bool, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if is_label => text.push_str("\\\""),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn families_are_written_escaped_and_summed_up() {
        let mut text = Text::default();
        let mut family = text.family("a_total", Kind::Counter, "Of \"a\", \\ and\nmore.");
        family.sample(&[("x", "q\"\\\n"), ("y", "2")], 1);
        family.sample(&[("x", "b"), ("y", "2")], 2);
        family.sample(&[("x", "b"), ("y", "2")], 40);
        drop(family);
        text.family("b", Kind::Gauge, "B.").sample(&[], 0);
        drop(text.family("empty", Kind::Gauge, "Nothing."));
        expect![[r#"
            # HELP a_total Of "a", \\ and\nmore.
            # TYPE a_total counter
            a_total{x="b",y="2"} 42
            a_total{x="q\"\\\n",y="2"} 1
            # HELP b B.
            # TYPE b gauge
            b 0
        "#]]
        .assert_eq(&text.finish());
    }
}
