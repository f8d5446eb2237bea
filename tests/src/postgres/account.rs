//! Who runs a server: Postgres refuses to run as root, which is who tests are in most containers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// An account by its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// Whom root hands `directory`, which it has made, over to. `None` if the test is not run by root.
    pub(super) fn instead_of_root(directory: &Path) -> Option<Self> {
        let owner = fs::metadata(directory).expect("the directory was made just now").uid();
        if owner != 0 {
            return None;
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = Self::suitable(&accounts).expect(
            "Postgres refuses to run as root, and there is no account `postgres` or `nobody`: run the tests as another user",
        );
        chown(directory, Some(account.user), Some(account.group))
            .unwrap_or_else(|error| panic!("cannot give {} away: {error}", directory.display()));
        Some(account)
    }

    /// Lets `command` be run by this account, and with none of root's groups.
    pub(super) fn run(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }

    /// The best one in the text of `/etc/passwd`.
    fn suitable(accounts: &str) -> Option<Self> {
        ["postgres", "nobody"].iter().find_map(|wanted| {
            let mut fields = accounts.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(wanted)).then_some(fields)
            })?;
            let user = fields.nth(1)?.parse().ok()?;
            Some(Self { user, group: fields.next()?.parse().ok()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_steps_in_for_postgres() {
        let nobody = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        assert_eq!(Account::suitable(nobody), Some(Account { user: 65534, group: 65533 }));
        let both = format!("{nobody}postgres:x:101:104::/var/lib/postgresql:/bin/bash\n");
        assert_eq!(Account::suitable(&both), Some(Account { user: 101, group: 104 }));
        assert_eq!(Account::suitable("root:x:0:0:root:/root:/bin/sh\n"), None);
    }
}
