//! Debian's packages: whether one can be installed here, and installing it. What is in them is the affair of who asks.

use crate::command::{Failure, tool};

/// Whether this is root on a Debian or one of its relatives, without the package.
pub(crate) fn may_install(package: &str) -> bool {
    let root = tool("id").arg("-u").output().is_ok_and(|id| id.trim() == "0");
    // Where the package is there already, it is of no use, and its server is none of our business.
    let status = tool("dpkg-query").args(["-W", "-f=${Status}", package]).output();
    root && tool("apt-get").arg("--version").output().is_ok()
        && !status.is_ok_and(|it| it.contains("ok installed"))
}

/// Installs it with what it depends on and nothing more.
pub(crate) fn install(package: &str) -> Result<(), Failure> {
    let apt = |arguments: &[&str]| {
        tool("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").output()
    };
    let install = || apt(&["install", "-y", "-qq", "--no-install-recommends", package]);
    if install().is_err() {
        // A fresh image has no lists of packages, or old ones.
        apt(&["update", "-qq"])?;
        install()?;
    }
    Ok(())
}
