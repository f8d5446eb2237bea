//! All interleavings of the cache's commands: the real code, held up at each command, in every order.

mod explorer;
pub(crate) mod mutants;
mod stepper;
mod world;

pub(crate) use stepper::gate;

use explorer::{Outcome, Place, Scenario};
use world::{Call, Invalidation, Role};

#[test]
fn scratch() {
    for by in [Invalidation::Exact, Invalidation::Family, Invalidation::Pattern, Invalidation::Publish] {
        for second in [1, 0] {
            let roles = [
                Role::Call { process: 0, how: Call::Plain },
                Role::Call { process: second, how: Call::Plain },
                Role::Invalidate { process: 0, by },
                Role::Read { process: 1 },
            ];
            let at = std::time::Instant::now();
            let outcome = Scenario::new(&roles).explore(&Place::Memory);
            println!("{by:?} {second} {outcome:?} {:?}", at.elapsed());
            assert!(matches!(outcome, Outcome::Kept(_)));
        }
    }
}
