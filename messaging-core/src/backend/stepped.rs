//! Where a test can hold a command of the cache up, or replace it. Outside `cfg(test)` nothing is left of it.

/// In front of a command, `stepped!(look)` waits until the test's schedule comes to it (see `cache::interleavings`);
/// `stepped!(store(self, …))` also lets a mutant answer instead. Around an expression, `stepped!(scan => …)`.
macro_rules! stepped {
    ($name:ident) => {
        #[cfg(test)]
        let _step = $crate::cache::interleavings::gate(stringify!($name)).await;
    };
    ($name:ident => $command:expr) => {{
        stepped!($name);
        $command
    }};
    ($name:ident($($argument:expr),*)) => {
        stepped!($name);
        #[cfg(test)]
        if let Some(answer) = $crate::cache::interleavings::mutants::$name($($argument),*) {
            return answer.await;
        }
    };
}
