//! The checks of `crash.rs` catch an engine that sends its own bit before it is durable, and engines without a clause of
//! the protocol do not refine the specification.
//!
//! Only with the feature `mutants`. The variable that chooses a mutant holds for a whole process, so the run that is to
//! fail is a process of its own.
#![cfg(feature = "mutants")]

#[path = "refinement/driver.rs"]
mod driver;
mod support;

use acms_engine::{
    mutant::{self, Mutant},
    protocol::{Mode, Order},
};
use driver::{Faults, Plan};
use std::process::Command;
use support::power;

const CHILD: &str = "ACMS_TEST_CHILD";

/// What breaks when power is lost everywhere at each flush in turn.
#[test]
fn report_what_breaks() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    for seed in 0..3 {
        let runs = (0..).map(|flush| (flush, power::lose_power_at(seed, flush, true)));
        for (flush, run) in runs.take_while(|(_, run)| run.happened) {
            run.broken.iter().for_each(|line| println!("\nBROKEN with seed {seed} at flush {flush}: {line}"));
        }
    }
}

fn broken_with(mutant: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "report_what_breaks", "--nocapture"]).env(CHILD, "1").env_remove("ACMS_MUTANT");
    if let Some(mutant) = mutant {
        command.env("ACMS_MUTANT", mutant);
    }
    let output = command.output().expect("this test runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter(|line| line.starts_with("BROKEN")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_bit_before_its_write_breaks_durability() {
    let broken = broken_with(Some("bit-before-durable"));
    assert!(broken.contains("P1: "), "P1 must be named, not: {broken}");
}

#[test]
fn the_honest_build_holds() {
    assert_eq!(broken_with(None), "");
}

/// Where a mutant is looked for: mostly where the clause that it lacks is needed at all.
struct Hunt {
    mutant: Mutant,
    plan: Plan,
    /// Seeds tried.
    seeds: u64,
}

/// Every mistake of the specification, with the runs that can show it. Those without a word here are shown by any runs.
fn hunts() -> Vec<Hunt> {
    use Mutant::*;
    let replaced = |faults: &mut Faults| {
        (faults.crashes, faults.replacements, faults.often) = (true, true, true);
        (faults.cuts, faults.duplicates) = (true, true);
    };
    let five = Plan { n: Some(5), faults: replaced, ..Plan::ANY };
    let three = Plan { n: Some(3), faults: replaced, ..Plan::ANY };
    let any = |mutant: Mutant| Hunt { mutant, plan: Plan::ANY, seeds: 400 };
    let with = |mutant: Mutant, plan: Plan| Hunt { mutant, plan, seeds: 3_000 };
    vec![
        // What a majority of the others does not know of a store only five can show.
        with(VectorsCarryStoresOfSetBitsOnly, five),
        any(UidWithoutStoreNumber),
        with(StoreIdsWithoutOrder, three),
        with(JoinRepliesWithoutStoreIds, five),
        any(AsOfListsPendingOnly),
        any(DropWithoutContent),
        any(KeyCompletesUnstarted),
        with(JoinSetsBitsOnUnstarted, Plan { mode: Some(Mode::TwoPhase), ..three }),
        any(DropForgetsKey),
        any(BitBeforeDurable),
        any(AnswersOfEarlierQuery),
        any(QuorumOneShort),
        any(NoClockCeiling),
        any(JoinKeepsOldStoreId),
        any(JoinFromTooFew),
        with(JoiningAnswersQueries, Plan { order: Some(Order::Strict), ..three }),
        any(AsOfRepliesOfEarlierRequest),
        any(AsOfIgnoresUidsAboveIt),
        any(AsOfIgnoresRepliersClocks),
        any(AsOfFromTooFew),
        any(RejectedAfterOffer),
        any(RejectedAfterExchangeStarted),
        any(RestartStartsExchange),
        any(DropWithoutAgreed),
        any(AnswerKnowsAgreedOnly),
        with(StoreLearnedLazily, three),
    ]
}

/// How the first run that shows `hunt`'s mutant ends; the engine's own assertions count. An error: the honest engine does
/// not pass that run, either.
fn caught(hunt: &Hunt) -> Result<String, String> {
    mutant::choose(Some(hunt.mutant));
    let end = |seed: u64| match std::panic::catch_unwind(|| driver::run(seed, hunt.plan)) {
        Ok(Ok(_)) => None,
        Ok(Err(not_allowed)) => Some((seed, not_allowed.why)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some((seed, format!("(its own assertion) {}", text.unwrap_or_default())))
        }
    };
    let caught = (0..hunt.seeds).find_map(end);
    mutant::choose(None);
    let (seed, why) = caught.ok_or("not caught")?;
    match driver::run(seed, hunt.plan) {
        Ok(_) => Ok(format!("seed {seed:>4}: {why}")),
        Err(not_allowed) => Err(format!("the honest engine fails with seed {seed}, too: {not_allowed}")),
    }
}

#[test]
fn engines_without_a_clause_do_not_refine_the_specification() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for hunt in hunts() {
        let end = caught(&hunt);
        println!("{:<40} {}", hunt.mutant.name(), end.as_ref().unwrap_or_else(|error| error));
        missed.extend(end.is_err().then(|| hunt.mutant.name()));
    }
    std::panic::set_hook(loud);
    assert!(missed.is_empty(), "these are not caught: {missed:?}");
}
