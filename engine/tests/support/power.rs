//! Runs of a cluster in which power is lost at a chosen flush, and what must hold afterwards.

use super::cluster::{Cluster, Options, Setup};
use acms_engine::protocol::{Outcome, SpId, random::Random};
use std::time::Duration;

/// What became of a run.
pub struct Run {
    /// Whether it had that many flushes, so that power was lost.
    pub happened: bool,
    /// Checkpoints that were made.
    pub checkpoints: usize,
    /// Promises broken, by name.
    pub broken: Vec<String>,
}

const PUBLICATIONS: usize = 10;
/// After one flush in so many the store makes a checkpoint, which counts as a flush.
const CHECKPOINT_EVERY: u64 = 6;

/// Publications through rotating SPs of three, every order of frames and flushes drawn from `seed`; during flush number
/// `at` the SP whose flush it is (or all of them) loses power: the write is begun, and torn where the disk says.
pub fn lose_power_at(seed: u64, at: usize, whole_cluster: bool) -> Run {
    let mut cluster = Cluster::new(3, Setup::default());
    let mut random = Random::new(seed);
    let (mut flushes, mut submitted, mut happened, mut checkpoints) = (0, 0, false, 0);
    // The first publication of each SP waits for its clock's ceiling; the interesting ones do not.
    for _ in cluster.sps().collect::<Vec<_>>() {
        submit(&mut cluster, submitted);
        submitted += 1;
        cluster.run();
    }
    loop {
        let (writes, links) = cluster.enabled();
        let choices = writes.len() + links.len();
        if submitted < PUBLICATIONS && (choices == 0 || random.below(6) == 0) {
            submit(&mut cluster, submitted);
            submitted += 1;
            continue;
        }
        if choices == 0 {
            break;
        }
        // Disks are slower than the network: that is when what is sent too early does harm.
        if !links.is_empty() && (writes.is_empty() || random.below(4) > 0) {
            let (from, to) = links[random.below(links.len() as u64) as usize];
            cluster.deliver(from, to);
            continue;
        }
        let sp = writes[random.below(writes.len() as u64) as usize];
        let is_checkpoint = random.below(CHECKPOINT_EVERY) == 0;
        // A checkpoint is several flushes.
        let nth = if is_checkpoint { 1 + random.below(4) } else { 1 };
        if flushes == at {
            happened = true;
            let disk = cluster.disk(sp);
            disk.stop_at_sync(disk.syncs() + nth);
            let _ = if is_checkpoint { cluster.maintain(sp) } else { cluster.flush(sp) };
            let victims: Vec<SpId> = cluster.sps().filter(|other| whole_cluster || *other == sp).collect();
            victims.iter().for_each(|victim| cluster.crash(*victim));
            victims.iter().for_each(|victim| cluster.start(*victim));
        } else if is_checkpoint {
            assert!(cluster.maintain(sp), "a healthy disk");
            checkpoints += 1;
        } else {
            cluster.flush(sp);
        }
        flushes += 1;
    }
    cluster.run_for(Duration::from_secs(30));
    Run { happened, checkpoints, broken: broken(&cluster) }
}

fn submit(cluster: &mut Cluster, number: usize) {
    let sp = SpId(1 + (number % 3) as u8);
    // Few paths get a second publication, which would hide the loss of the first.
    let (path, content) = (format!("d/p{}", number % 8), format!("content {number}"));
    cluster.submit(&format!("s{number}"), sp, &path, Some(content.as_bytes()), Options::default());
}

fn broken(cluster: &Cluster) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, told) in &cluster.told {
        for sp in cluster.sps() {
            let served = cluster.sp(sp).lookup(&told.path);
            match &told.outcome {
                Outcome::Accepted { uid } => {
                    let kept = served
                        .as_ref()
                        .is_some_and(|entry| entry.uid > *uid || (entry.uid, entry.hash) == (*uid, told.hash));
                    if !kept {
                        broken.push(format!(
                            "P1: {name} was accepted as {uid} at sp{}, sp{sp} serves {served:?}",
                            told.sp
                        ));
                    } else if let Err(why) = cluster.try_read(sp, told.path.as_str()) {
                        broken.push(format!("P1: {name} was accepted as {uid}, its content at sp{sp}: {why}"));
                    }
                }
                Outcome::Rejected { .. } if served.is_some_and(|entry| entry.hash == told.hash) => {
                    broken.push(format!("P8: {name} was rejected, sp{sp} serves it"));
                }
                _ => {}
            }
        }
    }
    let roots = cluster.sps().map(|sp| cluster.sp(sp).snapshot(Default::default()).root);
    if roots.collect::<std::collections::BTreeSet<_>>().len() != 1 {
        broken.push("P2: roots differ at the end".to_owned());
    }
    let pending: usize = cluster.sps().map(|sp| cluster.sp(sp).status().pending).sum();
    if pending > 0 {
        broken.push(format!("P2: {pending} publications are pending for ever"));
    }
    broken
}
