//! All interleavings of the cache's commands: the real code, held up at each command, in every order, with a source of
//! truth whose versions only grow. What must never be seen: a version older than one whose invalidation had returned
//! before the call began; an old version stored in the end; two loads at once that nothing has made worthless.
//!
//! A schedule that breaks a promise is printed. To run it alone, name its test:
//! `INTERLEAVING='A.begin A.lease …' cargo test -p messaging-core --lib -- --include-ignored --nocapture <test>`.

mod explorer;
pub(crate) mod mutants;
mod run;
mod stepper;
mod world;

pub(in crate::cache) use stepper::for_this_actor;
pub(crate) use stepper::gate;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use explorer::{Outcome, Place, Scenario};
use messaging_tests::RedisServer;
use mutants::Mutant;
use world::{Call, Invalidation, Role};

const KINDS: [Invalidation; 4] =
    [Invalidation::Exact, Invalidation::Family, Invalidation::Pattern, Invalidation::Publish];

const fn call(process: usize) -> Role {
    Role::Call { process, how: Call::Plain }
}

const fn called(process: usize, how: Call) -> Role {
    Role::Call { process, how }
}

const fn invalidate(by: Invalidation) -> Role {
    Role::Invalidate { process: 2, by }
}

const READ: Role = Role::Read { process: 1 };

/// Two callers in two processes.
fn apart(by: Invalidation) -> Scenario {
    Scenario::new(&[call(0), call(1), invalidate(by), READ])
}

/// Two callers in one process, where one joins the other.
fn together(by: Invalidation) -> Scenario {
    Scenario::new(&[call(0), call(0), invalidate(by), READ])
}

/// One caller.
fn alone(by: Invalidation) -> Scenario {
    Scenario::new(&[call(0), invalidate(by), READ])
}

/// A database of the test's own, on a server that all of them share.
fn redis() -> Place {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(|| {
        RedisServer::builder().unix_socket().arg("--databases", &DATABASES.to_string()).start()
    });
    let database = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(database < DATABASES);
    Place::Redis(format!("{}?db={database}", server.url()))
}

const DATABASES: u32 = 64;

/// Returns how many schedules there are.
#[track_caller]
fn keeps(scenario: &Scenario, place: &Place) -> u64 {
    let begun = std::time::Instant::now();
    match scenario.explore(place) {
        Outcome::Kept(schedules) => {
            println!("{schedules} schedules in {:?}: {:?}", begun.elapsed(), scenario.roles);
            schedules
        }
        Outcome::Broken(violation) => panic!("{violation:?}\n    {scenario:?}"),
    }
}

/// The promises are kept, but not with the mutant: the schedules would notice such a mistake.
#[track_caller]
fn catches(mutant: Mutant, scenario: &Scenario, place: &Place) {
    keeps(scenario, place);
    notices(mutant, scenario, place);
}

#[track_caller]
fn notices(mutant: Mutant, scenario: &Scenario, place: &Place) {
    match scenario.mutated(mutant).explore(place) {
        Outcome::Kept(schedules) => {
            panic!("{mutant:?} is not noticed in {schedules} schedules of {scenario:?}")
        }
        Outcome::Broken(violation) => println!("{mutant:?}: {violation:?}"),
    }
}

/// One test in memory, one on Redis.
macro_rules! on_both {
    ($($(#[$doc:meta])* fn $name:ident($place:ident) $test:block)+) => {
        mod memory {
            use super::*;
            $($(#[$doc])* #[test] fn $name() { let $place = &Place::Memory; $test })+
        }

        mod redis {
            use super::*;
            $($(#[$doc])* #[test] #[ignore = "needs a redis-server, and seconds to minutes"]
            fn $name() { let $place = &super::redis(); $test })+
        }
    };
}

on_both! {
    fn two_processes(place) {
        for by in KINDS {
            keeps(&apart(by), place);
        }
    }

    fn one_process(place) {
        for by in KINDS {
            keeps(&together(by), place);
        }
    }

    fn a_value_is_replaced(place) {
        for by in KINDS {
            let roles = [called(0, Call::Refresh), call(1), invalidate(by), READ];
            keeps(&Scenario { stored: true, ..Scenario::new(&roles) }, place);
        }
    }

    fn two_events_at_once(place) {
        let publish = Role::Invalidate { process: 1, by: Invalidation::Publish };
        keeps(&Scenario::new(&[call(0), invalidate(Invalidation::Exact), publish, READ]), place);
    }

    fn a_value_is_written(place) {
        keeps(&Scenario::new(&[call(0), call(1), Role::Set { process: 2 }, READ]), place);
    }

    /// The other caller reads for itself: with a reader there would be ten times as many.
    fn a_caller_goes_away(place) {
        for process in [0, 1] {
            let cancelled = called(0, Call::Cancelled);
            keeps(&Scenario::new(&[cancelled, call(process), invalidate(Invalidation::Exact)]), place);
        }
    }

    fn the_function_fails(place) {
        for process in [0, 1] {
            let failing = called(0, Call::Failing);
            let roles = [failing, call(process), invalidate(Invalidation::Exact), READ];
            keeps(&Scenario::new(&roles), place);
        }
    }

    fn an_attempt_to_get_the_lease_arrives_late(place) {
        let roles = [called(0, Call::Lost), Role::LateLease, invalidate(Invalidation::Exact), READ];
        keeps(&Scenario::new(&roles), place);
    }

    fn token_of_the_process(place) {
        catches(Mutant::TokenOfTheProcess, &together(Invalidation::Exact), place);
    }

    fn retry_with_the_same_token(place) {
        let roles = [call(0), Role::LateLease, invalidate(Invalidation::Exact), READ];
        catches(Mutant::RetryWithTheSameToken, &Scenario::new(&roles), place);
    }

    fn store_without_lease(place) {
        for by in KINDS {
            catches(Mutant::StoreWithoutLease, &alone(by), place);
        }
    }

    fn store_without_seen(place) {
        let roles = [call(0), Role::ForeignSet, READ];
        catches(Mutant::StoreWithoutSeen, &Scenario::new(&roles), place);
        let roles = [called(0, Call::Refresh), Role::ForeignSet, READ];
        catches(Mutant::StoreWithoutSeen, &Scenario { stored: true, ..Scenario::new(&roles) }, place);
    }

    fn lease_left_behind(place) {
        catches(Mutant::LeaseLeftBehind, &alone(Invalidation::Exact), place);
        catches(Mutant::LeaseLeftBehind, &alone(Invalidation::Publish), place);
    }

    fn blind_renew(place) {
        let roles = [called(0, Call::Slow), Role::Time, invalidate(Invalidation::Exact), READ];
        catches(Mutant::BlindRenew, &Scenario::new(&roles), place);
    }

    fn blind_release(place) {
        let roles = [called(0, Call::Failing), call(1), call(2), invalidate(Invalidation::Exact)];
        // A has lost its lease and does not know it. From the very beginning it would be a hundred times as many.
        let beginning = "A.begin A.lease D.begin D.forget";
        catches(Mutant::BlindRelease, &Scenario { beginning, ..Scenario::new(&roles) }, place);
    }

    fn flush_of_values(place) {
        catches(Mutant::FlushOfValues, &alone(Invalidation::Family), place);
        catches(Mutant::FlushOfValues, &alone(Invalidation::Pattern), place);
    }

    fn join_unseen(place) {
        catches(Mutant::JoinUnseen, &together(Invalidation::Exact), place);
        catches(Mutant::JoinUnseen, &together(Invalidation::Publish), place);
    }

    fn set_in_two_commands(place) {
        let roles = [call(0), Role::Set { process: 1 }, Role::Eviction, READ];
        catches(Mutant::SetInTwoCommands, &Scenario::new(&roles), place);
    }
}

/// In memory a flush holds the lock from beginning to end.
#[test]
#[ignore = "needs a redis-server"]
fn flush_in_one_pass() {
    for by in [Invalidation::Family, Invalidation::Pattern] {
        let scenario = Scenario { fine: true, ..alone(by) };
        catches(Mutant::FlushInOnePass, &scenario, &redis());
    }
}

#[test]
#[ignore = "needs a redis-server, and minutes"]
fn a_flush_command_by_command() {
    keeps(&Scenario { fine: true, ..apart(Invalidation::Family) }, &redis());
    keeps(&Scenario { fine: true, ..together(Invalidation::Pattern) }, &redis());
}

/// Nothing is left out: neither for being the same in another order, nor otherwise.
#[test]
#[ignore = "needs a redis-server, and minutes"]
fn every_single_schedule() {
    let place = redis();
    for by in [Invalidation::Exact, Invalidation::Publish] {
        keeps(&Scenario { all: true, ..apart(by) }, &place);
        keeps(&Scenario { all: true, ..together(by) }, &place);
    }
}

/// The schedules of two callers notice on their own what the smaller ones were made for.
#[test]
fn the_large_schedules_notice_it_too() {
    for by in KINDS {
        let flush = matches!(by, Invalidation::Family | Invalidation::Pattern);
        let incomplete = if flush { Mutant::FlushOfValues } else { Mutant::LeaseLeftBehind };
        for mutant in [Mutant::StoreWithoutLease, incomplete] {
            notices(mutant, &apart(by), &Place::Memory);
            notices(mutant, &together(by), &Place::Memory);
        }
        notices(Mutant::TokenOfTheProcess, &together(by), &Place::Memory);
        notices(Mutant::JoinUnseen, &together(by), &Place::Memory);
    }
}

/// A mistake in what counts as the same would leave schedules out.
#[test]
fn all_orders_are_tried() {
    let readers = [READ, Role::Read { process: 0 }];
    let scenario = Scenario::new(&[readers[0], readers[1], invalidate(Invalidation::Exact)]);
    let all = Scenario { all: true, ..scenario.clone() };
    assert_eq!(keeps(&all, &Place::Memory), 12, "4! / 2!");
    assert_eq!(keeps(&scenario, &Place::Memory), 4, "each reader before or after the removal");
}
