//! Updates of the files: which, when and with what, all decided by the seed before the first is sent.

use super::{File, Random};
use crate::scenario::{Arrival, Fraction, Workload};
use acms_engine::protocol::{Hash, Path};
use bytes::Bytes;
use std::{collections::BTreeSet, time::Duration};

/// One publication to come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// When it is due, from the first moment of the updates.
    pub at: Duration,
    /// Of which file.
    pub path: Path,
    /// Its content; `None` deletes it.
    pub content: Option<Bytes>,
    /// Hash of the content, of the empty one if it is deleted.
    pub hash: Hash,
}

/// The updates of a run, by time.
#[derive(Clone, Debug)]
pub struct Updates<'f> {
    files: &'f [File],
    random: Random,
    arrival: Arrival,
    gap_ns: Option<u64>,
    deletes: Fraction,
    duration: Duration,
    next_ns: u64,
    number: u64,
    deleted: BTreeSet<usize>,
}

impl<'f> Updates<'f> {
    /// Updates of `files` for `duration`.
    pub fn new(files: &'f [File], workload: &Workload, duration: Duration, seed: u64) -> Updates<'f> {
        Updates {
            files,
            random: Random::new(seed, "updates"),
            arrival: workload.arrival,
            // One correctly rounded division: the same on every machine.
            gap_ns: (workload.updates_per_s > 0.0).then(|| (1e9 / workload.updates_per_s) as u64),
            deletes: workload.deletes,
            duration,
            next_ns: 0,
            number: 0,
            deleted: BTreeSet::new(),
        }
    }

    /// The file's content as first loaded, with a line that no other update has.
    fn changed(&mut self, file: &File) -> Bytes {
        let mut content = file.content.to_vec();
        let line = format!("# update {} of {} {:016x}\n", self.number, file.path, self.random.bits());
        content.extend_from_slice(line.as_bytes());
        content.into()
    }
}

impl Iterator for Updates<'_> {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        let gap_ns = match self.arrival {
            Arrival::Fixed => self.gap_ns?,
            Arrival::Poisson => self.random.exponential(self.gap_ns?),
        };
        let at = Duration::from_nanos(self.next_ns);
        if at >= self.duration {
            return None;
        }
        self.next_ns = self.next_ns.saturating_add(gap_ns);
        self.number += 1;
        let chosen = self.random.below(self.files.len() as u64) as usize;
        let file = self.files.get(chosen)?;
        let delete = self.random.chance(self.deletes.0) && !self.deleted.contains(&chosen);
        if delete {
            self.deleted.insert(chosen);
            return Some(Update { at, path: file.path.clone(), content: None, hash: Hash::of(b"") });
        }
        self.deleted.remove(&chosen);
        let content = self.changed(file);
        Some(Update { at, path: file.path.clone(), hash: Hash::of(&content), content: Some(content) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Contents;

    fn updates(workload: &Workload, seed: u64) -> Vec<Update> {
        let files = Contents::of(workload, 1).unwrap().files;
        Updates::new(&files, workload, Duration::from_secs(10), seed).collect()
    }

    #[test]
    fn the_seed_decides_all_and_the_rate_is_kept() {
        let workload =
            Workload { files: Some(5), updates_per_s: 50.0, deletes: Fraction(200_000), ..Workload::default() };
        let drawn = updates(&workload, 1);
        assert_eq!(drawn, updates(&workload, 1));
        assert_ne!(drawn, updates(&workload, 2));
        assert!((400..600).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.is_sorted_by_key(|update| update.at));
        let hashes: BTreeSet<_> = drawn.iter().filter(|update| update.content.is_some()).map(|u| u.hash).collect();
        let deletions = drawn.iter().filter(|update| update.content.is_none()).count();
        assert_eq!(hashes.len() + deletions, drawn.len(), "no two updates have the same content");
        assert!(deletions > 20);

        let fixed = updates(&Workload { arrival: Arrival::Fixed, ..workload.clone() }, 1);
        assert_eq!(fixed.len(), 500);
        assert!(updates(&Workload { updates_per_s: 0.0, ..workload }, 1).is_empty());
    }
}
