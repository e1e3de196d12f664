//! Power lost at every flush, one after the other: what was accepted survives (P1), all SPs end with the same index
//! (P2), and what was rejected never appears (P8).

mod support;

use support::power;

/// Each flush of a run, by every SP, in several schedules.
#[test]
fn accepted_survives_power_loss_at_every_flush() {
    let (mut losses, mut checkpoints) = (0, 0);
    for seed in 0..4 {
        for whole_cluster in [false, true] {
            let mut flush = 0;
            loop {
                let run = power::lose_power_at(seed, flush, whole_cluster);
                if !run.happened {
                    break;
                }
                assert_eq!(run.broken, Vec::<String>::new(), "seed {seed}, flush {flush}, all {whole_cluster}");
                losses += 1;
                checkpoints += run.checkpoints;
                flush += 1;
            }
            assert!(flush > 20, "the run has flushes to lose power at, not {flush}");
        }
    }
    assert!(checkpoints > losses, "{checkpoints} checkpoints in {losses} runs");
    println!("power lost at {losses} flushes, {checkpoints} checkpoints made");
}
