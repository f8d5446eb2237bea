//! What tests need beyond Rust: found or installed, and told to who runs them. It runs none of it.

use crate::command::Failure;
use crate::postgres::Missing;
use crate::workspace::Workspace;
use crate::{chromium, node, postgres, python, redis, web};
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the test of AsyncAPI documents has what npm reads.
const ASYNCAPI: &str = "tests/asyncapi";
/// Where that of Centrifugo's clients has it.
const CENTRIFUGO: &str = "tests/centrifugo";

/// What there is for the steps that are run.
#[derive(Default)]
pub(crate) struct Provided {
    /// What `cargo test` is told of it.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    /// For the step `client`.
    pub(crate) node: Option<node::Node>,
    /// The packages of npm for the types of the client.
    pub(crate) typescript: Option<PathBuf>,
    /// What the test in a browser is told.
    pub(crate) browser: Option<Vec<(&'static str, OsString)>>,
    /// Suites that cannot run on this machine, each with the reason.
    pub(crate) skipped: Vec<String>,
}

/// Finds or installs what the steps need of which `wants` says that they are run. Under `CI=true` nothing may be missing.
pub(crate) fn provide(
    workspace: &Workspace,
    wants: impl Fn(&str) -> bool,
    missing_postgres: Missing,
) -> Result<Provided, Failure> {
    let mut provided = Provided::default();
    if wants("test") || wants("browser") {
        let server = redis::provide(workspace)?;
        println!("{:<14}{server}", "redis-server");
        if wants("test") {
            provided.skipped.extend(server.lacks());
        }
        provided.environment.push(("REDIS_SERVER_BIN", server.path.into_os_string()));
    }
    if wants("test") {
        provided.python(workspace);
        let (asyncapi, centrifugo) = ("MESSAGING_TEST_ASYNCAPI", "MESSAGING_TEST_CENTRIFUGO");
        provided.packages(
            workspace,
            "asyncapi",
            ASYNCAPI,
            asyncapi,
            "AsyncAPI documents in the official parser",
        );
        provided.packages(
            workspace,
            "centrifugo",
            CENTRIFUGO,
            centrifugo,
            "the client of Centrifugo in JavaScript",
        );
        provided.chromium();
        provided.postgres(missing_postgres)?;
    }
    if wants("client") {
        provided.client(workspace);
    }
    if wants("browser") {
        match browser(workspace) {
            Ok(environment) => {
                provided.browser = Some([&provided.environment[..1], &environment].concat());
            }
            Err(reason) => provided.skipped.push(format!("the page in a browser ({reason})")),
        }
    }
    if !provided.skipped.is_empty() && std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        let suites = provided.skipped.join(", ");
        return Err(Failure::new(format!(
            "under CI=true every suite has to run, and these cannot: {suites}"
        )));
    }
    Ok(provided)
}

impl Provided {
    fn python(&mut self, workspace: &Workspace) {
        match python::provide(workspace) {
            Ok(python) => {
                println!("{:<14}{}", "python", python.interpreter.display());
                self.environment.push(("MESSAGING_TEST_PYTHON", python.interpreter.into_os_string()));
                if let Err(reason) = python.clients {
                    self.skipped.push(format!("clients of the gateway in python ({reason})"));
                }
                if let Err(reason) = python.schemas {
                    self.skipped.push(format!("files that deploy examples ({reason})"));
                }
            }
            Err(reason) => {
                self.skipped.push(format!(
                    "python interop, clients of the gateway in python, and files that deploy examples ({reason})"
                ));
            }
        }
    }

    /// What npm installs for tests that run Node.js; `variable` tells them where it is.
    fn packages(
        &mut self,
        workspace: &Workspace,
        name: &str,
        source: &str,
        variable: &'static str,
        suite: &str,
    ) {
        match node::find().and_then(|_| node::provide(workspace, name, source.as_ref())) {
            Ok(mut modules) => {
                // Where `node_modules` is.
                modules.pop();
                self.environment.push((variable, modules.into_os_string()));
            }
            Err(reason) => self.skipped.push(format!("{suite} ({reason})")),
        }
    }

    fn chromium(&mut self) {
        match chromium::find() {
            Ok(found) => self.environment.push((chromium::VARIABLE, found.path.into_os_string())),
            Err(reason) => {
                self.skipped.push(format!("the client of Centrifugo in a browser ({reason})"));
            }
        }
    }

    fn postgres(&mut self, missing: Missing) -> Result<(), Failure> {
        match postgres::provide(missing)? {
            Some(programs) => {
                println!("{:<14}{programs}", "postgres");
                self.environment.push((postgres::VARIABLE, programs.directory.into_os_string()));
            }
            None => self.skipped.push(
                "Postgres models and outbox (no PostgreSQL found; cargo xtask test --postgres installs it)"
                    .to_owned(),
            ),
        }
        Ok(())
    }

    fn client(&mut self, workspace: &Workspace) {
        match node::find() {
            Ok(node) => {
                println!("{:<14}{}", "node", node.major);
                self.node = Some(node);
            }
            Err(reason) => return self.skipped.push(format!("the client in JavaScript ({reason})")),
        }
        match node::provide(workspace, "client", web::CLIENT.as_ref()) {
            Ok(modules) => self.typescript = Some(modules),
            Err(reason) => self.skipped.push(format!("the types of the client ({reason})")),
        }
    }
}

/// The variables with which `tests/browser` is told of Chromium and Playwright; or why it cannot run.
fn browser(workspace: &Workspace) -> Result<Vec<(&'static str, OsString)>, String> {
    node::find()?;
    let chromium = chromium::find()?;
    println!("{:<14}{} ({})", "chromium", chromium.path.display(), chromium.version);
    let mut playwright = node::provide(workspace, "browser", web::BROWSER.as_ref())?;
    // Where `node_modules` is.
    playwright.pop();
    Ok(vec![
        (chromium::VARIABLE, chromium.path.into_os_string()),
        ("MESSAGING_TEST_PLAYWRIGHT", playwright.into_os_string()),
    ])
}
