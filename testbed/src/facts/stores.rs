//! Which stores have a publication's own bit durably, until it is known to be agreed.
//!
//! Bits belong to stores: those of a lost disk count no more once the store in its place is ready, which has by then
//! everything of which an agreement could rest on the old one's.

use crate::trace::{Event, Kind};
use acms_engine::protocol::{SpId, SpSet, Uid};
use std::collections::BTreeMap;

/// What storage points said that they stored.
#[derive(Debug, Default)]
pub(crate) struct Stores {
    /// Of each publication, storage points with the numbers of their stores.
    held: BTreeMap<Uid, Vec<(SpId, u32)>>,
    /// The store with which each storage point was last ready.
    ready: BTreeMap<SpId, u32>,
    /// Whether any storage point ever said so: else nothing can be concluded.
    pub(crate) are_told: bool,
}

impl Stores {
    /// `sp` has stored something, or is ready.
    pub(super) fn see(&mut self, sp: SpId, event: &Event) {
        let cause = event.cause.as_deref().unwrap_or_default();
        let Ok(store) = cause.split('-').next().unwrap_or_default().parse::<u32>() else { return };
        match (event.kind, event.uid) {
            (Kind::Stored, Some(uid)) => {
                self.are_told = true;
                let held = self.held.entry(uid).or_default();
                if !held.contains(&(sp, store)) {
                    held.push((sp, store));
                }
            }
            _ => drop(self.ready.insert(sp, store)),
        }
    }

    /// Storage points whose present stores have it.
    pub(crate) fn of(&self, uid: Uid) -> SpSet {
        let held = self.held.get(&uid).map_or(&[][..], Vec::as_slice);
        let is_present = |(sp, store): &&(SpId, u32)| self.ready.get(sp).is_none_or(|ready| store >= ready);
        held.iter().filter(is_present).map(|(sp, _)| *sp).collect()
    }

    /// It was shown that a quorum has it, or that none has: nothing more is asked.
    pub(super) fn forget(&mut self, uid: Uid) {
        self.held.remove(&uid);
    }
}
