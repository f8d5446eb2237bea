//! What holds for every command: mistakes in one line, secrets that are not shown, colours, completions.

use super::{Cli, messaging, run};

#[test]
fn mistakes_are_one_line_that_says_what_to_try() {
    for (arguments, complaint) in [
        (
            &["tial"][..],
            "error: unrecognized subcommand 'tial'; a similar subcommand exists: 'tail'; try `messaging --help`",
        ),
        (
            &["tail", "a", "--jsn"],
            "error: unexpected argument '--jsn' found; a similar argument exists: '--json'; try `messaging tail --help`",
        ),
        (
            &["tail", "a", "--count", "x"],
            "error: invalid value 'x' for '--count <N>': invalid digit found in string; try `messaging tail --help`",
        ),
        (
            &["groups", "--url", "memory://"],
            "error: memory:// is in the memory of one process, where no other can look: name a Redis with --url or REDIS_URL",
        ),
        (&["groups", "--url", "redis"], "error: --url has no scheme; it accepts"),
    ] {
        let mut command = messaging();
        command.args(arguments);
        let said = run(command, None).complaint(2);
        assert!(said.starts_with(complaint), "{said}");
    }
    for (variable, value) in [("REDIS_PORT", "x"), ("REDIS_URL", "http://a"), ("MESSAGING_RECLAIM", "soon")] {
        let mut command = messaging();
        command.arg("groups").env(variable, value);
        let said = run(command, None).complaint(2);
        assert!(said.starts_with(&format!("error: {variable} ")), "{said}");
    }
    let came = run(messaging(), None).with(2);
    assert!(came.err.contains("Usage: messaging"), "{came:?}");
}

#[test]
fn no_password_is_shown() {
    for arguments in [
        &["redis://:hidden@127.0.0.1:1"][..],
        &["--url", "redis://:hidden@127.0.0.1:1", "groups"],
        &["--url", "redis://:hidden@127.0.0.1:bad", "groups"],
        &["--url=redis+unix:///nothing?pass=hidden", "groups"],
        &["--url", "redis://:hid@den@127.0.0.1:1", "check"],
        &["tail", "a", "redis://u:hidden@h", "--url"],
        &["health", "--http", "http://user:hidden@127.0.0.1:1/readyz"],
    ] {
        let mut command = messaging();
        command.args(arguments);
        let came = run(command, None);
        assert!(came.code != 0 && !came.out.contains("hid") && !came.err.contains("hid"), "{came:?}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let cli = Cli::new();
    let colours = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = cli.command(arguments);
        command.envs(variable);
        run(command, None).with(0).out.contains('\u{1b}')
    };
    assert!(!colours(&["health"], None));
    assert!(colours(&["health", "--color", "always"], None));
    assert!(colours(&["health"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colours(&["health", "--color", "never"], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!colours(&["health"], Some(("NO_COLOR", "1"))));
}

#[test]
fn shells_are_given_completions() {
    for (shell, part) in
        [("bash", "complete -F _messaging"), ("zsh", "#compdef messaging"), ("fish", "complete -c messaging")]
    {
        let mut command = messaging();
        command.args(["completions", shell]);
        let script = run(command, None).well();
        assert!(script.contains(part) && script.contains("replay"), "{shell}");
    }
}
