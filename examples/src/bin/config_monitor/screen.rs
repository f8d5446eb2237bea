//! Aligned lines with the time since the start.

use std::time::Instant;

#[derive(Clone)]
pub(crate) struct Screen(Instant);

impl Screen {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn line(&self, who: &str, what: &str, text: &str) {
        println!("{:>6} ms  {who:<7}  {what:<23}  {text}", self.0.elapsed().as_millis());
    }
}
