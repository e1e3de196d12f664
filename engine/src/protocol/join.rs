//! A lost disk: how the new store of a storage point is filled, and how the others help.
//!
//! Those asked first make the new store's id durable, which voids the bits of the old one for good, and only then read
//! and send what they hold, page by page in order of UID (what they drop meanwhile, they drop for a greater UID, which a
//! later page has). Once a quorum of the others has sent all, and all is durable here, the SP takes part again. Until
//! then it sends no bit, answers nothing and takes no submission. The next page is asked for when little of the earlier
//! ones is still on its way.

use crate::{
    mutant::{self, Mutant},
    protocol::{
        Config, Durable, Duration, Instant, Message, SpId, SpSet, StoragePoint, Uid,
        exchange::{Hold, OwnBit, Publication},
        message::{JOIN_ITEMS_MAX, JoinItem, JoinPage, JoinState, RequestId},
        storage_point::Written,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// A page that does not come is asked for again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of manifests in a page, at most.
const PAGE_LEN_MAX: usize = 1 << 20;
/// With more publications than this on their way no further page is asked for.
const UNDER_WAY_MAX: usize = JOIN_ITEMS_MAX / 2;
/// What the disk refused is written again after so long.
const REFUSED_PAUSE: Duration = Duration::from_secs(3);

/// The filling of this SP's new store.
#[derive(Debug, Default)]
pub(super) struct Join {
    request: RequestId,
    from: BTreeMap<SpId, Progress>,
    /// Publications whose contents or writes are still under way.
    missing: BTreeSet<Uid>,
    /// Those of them that the disk refused, and when they are tried again.
    refused: BTreeSet<Uid>,
    again_at: Instant,
    finishing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    after: Uid,
    done: bool,
    /// The next page has to wait: too much is on its way.
    waits: bool,
    asked_at: Instant,
}

impl Join {
    /// The new store waits for `uid` no more: it is durable here, or gave way to a newer publication that is.
    pub(super) fn is_durable_or_dropped(&mut self, uid: Uid) {
        self.missing.remove(&uid);
    }

    fn repliers(&self) -> SpSet {
        self.from.iter().filter(|(_, progress)| progress.done).map(|(sp, _)| *sp).collect()
    }
}

impl StoragePoint {
    // ---- At the new store -------------------------------------------------------------------------------------------

    /// Asks a peer for what it holds, from where its last page ended, unless too much is on its way.
    pub(super) fn ask_to_join(&mut self, peer: SpId) {
        let request = match &self.join {
            Some(join) if join.request != RequestId::default() => join.request,
            _ => self.new_request(),
        };
        let (now, resting) = (self.now.instant, self.transfers.resting());
        let Some(join) = &mut self.join else { return };
        join.request = request;
        // What rests may wait for something of a later page.
        let is_busy = join.missing.len().saturating_sub(resting) > UNDER_WAY_MAX;
        let fresh = Progress { after: Uid::ZERO, done: false, waits: false, asked_at: now };
        let progress = join.from.entry(peer).or_insert(fresh);
        (progress.waits, progress.asked_at) = (is_busy, now);
        let Progress { after, done, .. } = *progress;
        if !done && !is_busy {
            self.send(peer, Message::JoinRequest { request, after });
        }
    }

    pub(super) fn join_at(&self) -> Option<Instant> {
        let open = self
            .join
            .as_ref()?
            .from
            .iter()
            .filter(|(sp, progress)| !progress.done && self.peers.get(sp).is_some_and(|peer| peer.connected));
        let page = open.map(|(_, progress)| progress.asked_at.after(PATIENCE)).min();
        let again = self.join.as_ref().filter(|join| !join.refused.is_empty()).map(|join| join.again_at);
        [page, again].into_iter().flatten().min()
    }

    /// The disk refused the write of `uid`: it is written again after a pause, and fetched again if need be.
    pub(super) fn hold_later(&mut self, uid: Uid) {
        let again_at = self.now.instant.after(REFUSED_PAUSE);
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        (publication.hold, publication.own) = (Hold::Fetching, OwnBit::Clear);
        if let Some(join) = &mut self.join {
            join.refused.insert(uid);
            join.again_at = again_at;
        }
    }

    /// Pages that did not come are asked for again, and what the disk refused is tried again.
    pub(super) fn remind_joining(&mut self) {
        let now = self.now.instant;
        let refused =
            self.join.as_mut().filter(|join| join.again_at <= now).map(|join| std::mem::take(&mut join.refused));
        refused.into_iter().flatten().for_each(|uid| self.write_if_whole(uid));
        let connected: Vec<SpId> = self.connected().collect();
        let Some(join) = &self.join else { return };
        let late = |sp: &SpId| join.from.get(sp).is_none_or(|one| !one.done && one.asked_at.after(PATIENCE) <= now);
        let late: Vec<SpId> = connected.into_iter().filter(late).collect();
        late.into_iter().for_each(|peer| self.ask_to_join(peer));
        self.go_on_joining();
    }

    /// Asks for the pages that had to wait, if little is on its way now. Ends the joining if nothing is.
    pub(super) fn go_on_joining(&mut self) {
        let Some(join) = &self.join else { return };
        let few = join.missing.len().saturating_sub(self.transfers.resting()) <= UNDER_WAY_MAX;
        let waiting = join.from.iter().filter(|(_, progress)| few && progress.waits && !progress.done);
        let waiting: Vec<SpId> = waiting.map(|(sp, _)| *sp).collect();
        waiting.into_iter().for_each(|peer| self.ask_to_join(peer));
        self.finish_join_if_whole();
    }

    pub(super) fn take_join_reply(&mut self, from: SpId, request: RequestId, after: Uid, page: JoinPage) {
        let now = self.now.instant;
        let Some(join) = &mut self.join else { return };
        let Some(progress) = join.from.get_mut(&from) else { return };
        if join.request != request || progress.done || progress.after != after {
            return;
        }
        progress.after = page.items.last().map_or(after, |item| item.manifest.uid);
        progress.done = page.last;
        progress.asked_at = now;
        self.clock.advance(page.clock);
        for item in page.items {
            self.take_join_item(from, item);
        }
        if !page.last {
            self.ask_to_join(from);
        }
    }

    fn take_join_item(&mut self, from: SpId, JoinItem { manifest, state }: JoinItem) {
        let uid = manifest.uid;
        let known = self.publications.get(&uid).map(|one| one.agreed);
        if known.is_none() {
            self.greatest = self.greatest.max(uid);
            self.keep(manifest, Vec::new(), state == JoinState::Agreed);
        }
        // Nobody may have the contents of what is only remembered, though another replier had them when it was asked.
        match state {
            JoinState::Remembered => self.remember(uid, None),
            JoinState::Dropped { .. } if known == Some(true) => self.remember(uid, None),
            JoinState::Dropped { superseded_by } => self.join_dropped(uid, superseded_by),
            _ => {}
        }
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        match state {
            JoinState::Pending { own_bit: true } => {
                publication.bits = publication.bits.union(SpSet::one(from));
                match (publication.hold, publication.superseded_by) {
                    (Hold::Durable, _) => self.set_own_bit(uid),
                    (Hold::Fetching, Some(by)) => self.remember(uid, Some(by)),
                    _ => {}
                }
            }
            JoinState::Agreed if publication.is_pending() => self.mark_agreed(uid),
            _ => {}
        }
        // What was dropped here since another replier told of it is waited for no more.
        let is_awaited = |one: &Publication| one.hold == Hold::Fetching && one.superseded_by.is_none();
        if self.publications.get(&uid).is_some_and(is_awaited) {
            if let Some(join) = &mut self.join {
                join.missing.insert(uid);
            }
            self.fetch_missing(uid, from);
            self.write_if_whole(uid);
        }
    }

    /// A replier has dropped `uid`. Its exchange had begun, as another replier may not have known: its key counts.
    fn join_dropped(&mut self, uid: Uid, superseded_by: Uid) {
        let Some(publication) = self.publications.get(&uid) else { return };
        if publication.hold == Hold::Fetching {
            return self.remember(uid, Some(superseded_by));
        }
        let manifest = publication.manifest.clone();
        self.keys.remember(&manifest);
        self.set_own_bit(uid);
    }

    /// Once a quorum of the others has sent all, and all of it is durable here, the store is filled. Writes that are
    /// under way may still be refused.
    fn finish_join_if_whole(&mut self) {
        let all_written = self.has_no_writes();
        let Some(join) = &mut self.join else { return };
        let repliers = join.repliers();
        let enough = self.quorum.is_quorum(repliers)
            || (mutant::active(Mutant::JoinFromTooFew) && !repliers.is_empty())
            || is_alone(&self.config);
        if !enough || !join.missing.is_empty() || join.finishing || !all_written {
            return;
        }
        join.finishing = true;
        self.persist(Durable::Joined, Some(Written::Joined));
    }

    // ---- At those asked ---------------------------------------------------------------------------------------------

    pub(super) fn take_join_request(&mut self, from: SpId, request: RequestId, after: Uid) {
        let number = self.stores.get(&from).map(|store| store.number);
        let is_durable = number.is_some() && self.stores_durable.get(&from).copied() == number;
        if is_durable || mutant::active(Mutant::JoinKeepsOldStoreId) {
            self.answer_join_request(from, request, after);
        } else {
            self.waiting_joins.insert(from, (request, after));
        }
    }

    /// A store id has become durable.
    pub(super) fn answer_waiting_joins(&mut self) {
        for (from, (request, after)) in std::mem::take(&mut self.waiting_joins) {
            self.take_join_request(from, request, after);
        }
    }

    fn answer_join_request(&mut self, from: SpId, request: RequestId, after: Uid) {
        let mut items = Vec::new();
        let mut len = 0;
        let mut last = true;
        let above = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        for publication in self.publications.range(above).map(|(_, publication)| publication) {
            let Some(state) = publication.join_state() else { continue };
            if items.len() == JOIN_ITEMS_MAX || len > PAGE_LEN_MAX {
                last = false;
                break;
            }
            len += publication.manifest.encode().len();
            items.push(JoinItem { manifest: publication.manifest.clone(), state });
        }
        let page = JoinPage { items, clock: self.clock.last(), last };
        self.send(from, Message::JoinReply { request, after, page });
    }
}

/// A cluster of one has nobody to ask: what its disk held is lost.
fn is_alone(config: &Config) -> bool {
    config.members.len() == 1
}

impl Publication {
    /// What a joining SP is told of it; none: nothing is durable here.
    fn join_state(&self) -> Option<JoinState> {
        if let Some(superseded_by) = self.superseded_by {
            return (self.own == OwnBit::Set).then_some(JoinState::Dropped { superseded_by });
        }
        if self.hold != Hold::Durable {
            return None;
        }
        Some(match (self.agreed, self.released) {
            (true, true) => JoinState::Remembered,
            (true, false) => JoinState::Agreed,
            (false, _) => JoinState::Pending { own_bit: self.own == OwnBit::Set },
        })
    }
}
