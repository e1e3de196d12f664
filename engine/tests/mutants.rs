//! The checks of `crash.rs` catch an engine that sends its own bit before it is durable, and engines without a clause of
//! the protocol do not refine the specification.
//!
//! Only with the feature `mutants`. The variable that chooses a mutant holds for a whole process, so the run that is to
//! fail is a process of its own.
#![cfg(feature = "mutants")]

#[path = "refinement/driver.rs"]
mod driver;
mod support;
#[path = "refinement/translate.rs"]
mod translate;

use acms_engine::mutant::{self, Mutant};
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

/// Seeds tried for each mutant.
const SEEDS: u64 = 400;

#[test]
fn engines_without_a_clause_do_not_refine_the_specification() {
    use Mutant::*;
    let broken = [
        BitBeforeDurable,
        QuorumOneShort,
        AnswersOfEarlierQuery,
        NoClockCeiling,
        DropWithoutAgreed,
        RejectedAfterOffer,
        AnswerKnowsAgreedOnly,
        RejectedAfterExchangeStarted,
        RestartStartsExchange,
        KeyCompletesUnstarted,
        JoinFromTooFew,
        JoinKeepsOldStoreId,
        AsOfFromTooFew,
        AsOfIgnoresRepliersClocks,
        AsOfIgnoresUidsAboveIt,
        AsOfListsPendingOnly,
        AsOfRepliesOfEarlierRequest,
        UidWithoutStoreNumber,
        DropWithoutContent,
        DropForgetsKey,
    ];
    let mut refined = Vec::new();
    for mutant in broken {
        mutant::choose(Some(mutant));
        let caught = (0..SEEDS).find_map(|seed| Some((seed, driver::run(seed).err()?)));
        mutant::choose(None);
        match caught {
            Some((seed, not_allowed)) => println!("{:<36} seed {seed:>4}: {}", mutant.name(), not_allowed.why),
            None => refined.push(mutant.name()),
        }
    }
    assert!(refined.is_empty(), "these refine the specification: {refined:?}");
}
