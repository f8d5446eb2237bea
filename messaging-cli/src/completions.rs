//! `completions`: what a shell needs to complete the command line.

use clap::Args;
use clap_complete::Shell;

use crate::failure::{Code, Failure};
use crate::output::out;

const LONG: &str = "\
Print what a shell completes the command line with

bash: messaging completions bash > /etc/bash_completion.d/messaging
zsh:  messaging completions zsh > \"${fpath[1]}/_messaging\"
fish: messaging completions fish > ~/.config/fish/completions/messaging.fish";

/// Print what a shell completes the command line with
#[derive(Args, Debug)]
#[command(long_about = LONG)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, command: &mut clap::Command) -> Result<Code, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "messaging", &mut script);
        std::io::Write::write_all(&mut out(), &script)?;
        Ok(Code::Well)
    }
}
