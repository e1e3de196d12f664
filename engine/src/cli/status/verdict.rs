//! What is wrong with a cluster, and what to do about it.

use super::{Asked, answer::Answer};
use crate::protocol::{
    SpId, SpSet,
    quorum::{Quorum, QuorumSystem},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// As-of rises once a second; older than this, something stands in its way.
const AS_OF_AGE_MS_MAX: u64 = 10_000;
/// Freshness is promised up to this error of clocks.
const CLOCK_OFFSET_US_MAX: i64 = 500_000;
/// A disk with less free than both of these is nearly full.
const DISK_FREE_PERCENT_MIN: u64 = 5;
const DISK_FREE_BYTES_MIN: u64 = 10 << 30;

/// How a cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Healthy,
    Degraded,
    Unreachable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Unreachable => "unreachable",
        })
    }
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) remedy: String,
}

fn finding(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what: what.into(), remedy: remedy.into() }
}

/// The verdict over all that were asked.
pub(super) fn judge(asked: &[Asked]) -> (Verdict, Vec<Finding>) {
    let answers: Vec<&Answer> = asked.iter().filter_map(|one| one.answer.as_ref().ok()).collect();
    let mut findings = Vec::new();
    findings.extend(unreachable(asked));
    findings.extend(quorum(&answers));
    findings.extend(strangers(&answers));
    findings.extend(links(&answers));
    findings.extend(clocks(&answers));
    findings.extend(answers.iter().flat_map(|answer| of_one(answer)));
    let verdict = match (answers.is_empty(), findings.is_empty()) {
        (true, _) => Verdict::Unreachable,
        (false, true) => Verdict::Healthy,
        (false, false) => Verdict::Degraded,
    };
    (verdict, findings)
}

fn unreachable(asked: &[Asked]) -> impl Iterator<Item = Finding> + '_ {
    let failed = asked.iter().filter_map(|one| Some((&one.url, one.answer.as_ref().err()?)));
    failed.map(|(url, error)| {
        let text = error.to_string();
        finding(if text.contains(url.as_str()) { text } else { format!("{url}: {text}") }, error.remedy())
    })
}

/// Whether those that answer can accept publications, by the first one's configuration.
fn quorum(answers: &[&Answer]) -> Option<Finding> {
    let first = answers.first()?;
    let members: BTreeSet<SpId> = first.peers.iter().map(|peer| peer.id).chain([first.sp]).map(SpId).collect();
    let up: SpSet = answers.iter().map(|answer| SpId(answer.sp)).filter(|sp| members.contains(sp)).collect();
    let members: Vec<SpId> = members.into_iter().collect();
    let quorum = Quorum::new(&first.quorum(), &members).or_else(|_| Quorum::new(&QuorumSystem::default(), &members));
    if quorum.ok()?.is_quorum(up) {
        return None;
    }
    let what = format!("the storage points that answer are no quorum ({}): nothing can be published", first.quorum());
    Some(finding(what, "start the others; what was accepted can be read meanwhile"))
}

/// Those that do not belong together.
fn strangers(answers: &[&Answer]) -> Vec<Finding> {
    let Some(first) = answers.first() else { return Vec::new() };
    let mut findings = Vec::new();
    for other in answers {
        if other.cluster != first.cluster {
            let what = format!("sp{} is of cluster {}, sp{} of {}", other.sp, other.cluster, first.sp, first.cluster);
            findings.push(finding(what, "name storage points of one cluster"));
        } else if other.epoch != first.epoch {
            let (this, that) = (first.epoch, other.epoch);
            let what = format!("sp{} has configuration {that}, sp{} has {this}: they do not talk", other.sp, first.sp);
            findings.push(finding(what, "give all storage points the same configuration, and start them anew"));
        }
    }
    findings
}

/// Links that are down between two that both answer; each pair once.
fn links(answers: &[&Answer]) -> Vec<Finding> {
    let up: BTreeSet<u8> = answers.iter().map(|answer| answer.sp).collect();
    let mut down: BTreeMap<(u8, u8), Vec<String>> = BTreeMap::new();
    for answer in answers {
        for peer in answer.peers.iter().filter(|peer| !peer.connected && up.contains(&peer.id)) {
            let pair = (answer.sp.min(peer.id), answer.sp.max(peer.id));
            let because = down.entry(pair).or_default();
            because.extend(peer.problem.iter().map(|problem| format!("sp{} says: {problem}", answer.sp)));
        }
    }
    let told = down.into_iter().map(|((a, b), because)| {
        let because = if because.is_empty() { String::new() } else { format!(" ({})", because.join("; ")) };
        let what = format!("no link between sp{a} and sp{b}{because}");
        finding(what, "let each reach the other's peer address; look at both logs")
    });
    told.collect()
}

/// How far each storage point's clock is from those of the others: the median of what they saw.
pub(super) fn clock_offsets(answers: &[&Answer]) -> BTreeMap<u8, i64> {
    let mut seen: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    for peer in answers.iter().flat_map(|answer| answer.peers.iter().filter(|peer| peer.connected)) {
        seen.entry(peer.id).or_default().extend(peer.clock_offset_us);
    }
    let medians = seen.into_iter().filter_map(|(sp, mut offsets)| {
        offsets.sort_unstable();
        Some((sp, *offsets.get(offsets.len().checked_sub(1)? / 2)?))
    });
    medians.collect()
}

fn clocks(answers: &[&Answer]) -> Vec<Finding> {
    let wrong = clock_offsets(answers).into_iter().filter(|(_, offset)| offset.abs() > CLOCK_OFFSET_US_MAX);
    wrong
        .map(|(sp, offset)| {
            let (ms, side) = (offset.abs() / 1_000, if offset > 0 { "fast" } else { "slow" });
            finding(format!("the clock of sp{sp} is {ms} ms {side}"), "see to the time service of its machine (NTP)")
        })
        .collect()
}

fn of_one(answer: &Answer) -> Vec<Finding> {
    let (sp, mut findings) = (answer.sp, Vec::new());
    let age = answer.as_of_age_ms();
    if age.is_none_or(|age| age > AS_OF_AGE_MS_MAX) && answer.uptime_s > AS_OF_AGE_MS_MAX / 1_000 {
        let age =
            age.map_or("it has never been sure".to_owned(), |ms| format!("it was last sure {} s ago", ms / 1_000));
        let what = format!("sp{sp} may lack what was accepted: {age}");
        findings
            .push(finding(what, "look at its links and log: it reaches no quorum, or publications wait for contents"));
    }
    let (used, free) = (answer.disk_used_percent(), answer.store.free_bytes.unwrap_or(u64::MAX));
    if let Some(used) = used.filter(|used| *used > 100 - DISK_FREE_PERCENT_MIN && free < DISK_FREE_BYTES_MIN) {
        let what = format!("the disk of sp{sp} is {used} % full, {} MiB are left", free >> 20);
        findings.push(finding(what, "make room on it: publications are rejected once it is full"));
    }
    let damaged = answer.protocol.contents_damaged_total;
    if damaged > 0 {
        let what = format!("sp{sp} has found {damaged} damaged contents since its start, and fetched them again");
        findings.push(finding(what, "test its disk and its memory; once they are replaced, start it anew"));
    }
    let failures = answer.store.log.failures_total;
    if failures > 0 {
        let what = format!("{failures} checkpoints of sp{sp} have failed since its start");
        findings.push(finding(what, "look at its log; until one succeeds its next start takes longer"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientError;
    use serde_json::{Value, json};

    fn up(sp: u8, change: impl Fn(&mut Value)) -> Asked {
        let peers: Vec<Value> = (1..=3)
            .filter(|id| *id != sp)
            .map(|id| json!({"id": id, "connected": true, "round_trip_us": 300, "clock_offset_us": 20}))
            .collect();
        let mut status = json!({
            "cluster": "c", "sp": sp, "epoch": 1, "quorum": "majority", "as_of_us": 1_000_000, "clock_us": 2_000_000,
            "uptime_s": 100, "peers": peers, "store": {"disk_bytes": 100u64 << 30, "free_bytes": 50u64 << 30},
        });
        change(&mut status);
        Asked { url: format!("http://sp{sp}"), answer: Ok(serde_json::from_value(status).unwrap()) }
    }

    fn down(sp: u8) -> Asked {
        let url = format!("http://sp{sp}:1");
        Asked { answer: Err(ClientError::Unreachable { url: url.clone(), detail: "refused".into() }), url }
    }

    fn texts(asked: &[Asked]) -> (Verdict, Vec<String>) {
        let (verdict, findings) = judge(asked);
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
        (verdict, findings.into_iter().map(|finding| finding.what).collect())
    }

    #[test]
    fn nothing_is_said_of_a_healthy_cluster_and_each_trouble_is_named_once() {
        let healthy = |sp| up(sp, |_| {});
        assert_eq!(texts(&[healthy(1), healthy(2), healthy(3)]), (Verdict::Healthy, vec![]));
        let (verdict, said) = texts(&[healthy(1), healthy(2), down(3)]);
        assert_eq!((verdict, said.len()), (Verdict::Degraded, 1), "{said:?}");
        assert!(said[0].contains("http://sp3:1 cannot be reached"));
        let (_, said) = texts(&[healthy(1), down(2), down(3)]);
        assert!(said.len() == 3 && said[2].contains("nothing can be published"), "{said:?}");
        assert_eq!(texts(&[down(1), down(2)]).0, Verdict::Unreachable);
    }

    #[test]
    fn links_clocks_disks_and_freshness() {
        let no_link = |other: usize| {
            move |status: &mut Value| {
                status["peers"][other]["connected"] = false.into();
                status["peers"][other]["problem"] = "no route".into();
            }
        };
        let (verdict, said) = texts(&[up(1, no_link(0)), up(2, no_link(0)), up(3, |_| {})]);
        assert_eq!(verdict, Verdict::Degraded);
        assert_eq!(said, ["no link between sp1 and sp2 (sp1 says: no route; sp2 says: no route)"]);
        // Two of three see that the third is fast; it sees both slow, and the median passes that over.
        let fast = |at: usize| move |status: &mut Value| status["peers"][at]["clock_offset_us"] = 900_000.into();
        let (_, said) = texts(&[up(1, fast(1)), up(2, fast(1)), up(3, |_| {})]);
        assert_eq!(said, ["the clock of sp3 is 900 ms fast"]);
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 4] = [
            ("was last sure 18 s ago", |status| status["clock_us"] = 19_000_000.into()),
            ("99 % full", |status| status["store"]["free_bytes"] = (1u64 << 30).into()),
            ("of cluster d", |status| status["cluster"] = "d".into()),
            ("configuration 2", |status| status["epoch"] = 2.into()),
        ];
        for (what, change) in cases {
            let (verdict, said) = texts(&[up(1, |_| {}), up(2, |_| {}), up(3, change)]);
            assert_eq!((verdict, said.len()), (Verdict::Degraded, 1), "{said:?}");
            assert!(said[0].contains(what), "{said:?}");
        }
    }
}
