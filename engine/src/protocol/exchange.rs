//! Replication and agreement by Vector Exchange.
//!
//! A vector has a bit for each SP; a set bit means that the SP holds the publication durably (`two-phase`: and knows
//! that a quorum does). Bits are ORed in; a quorum of bits is agreement, which is never undone. Invariants: this SP's
//! own bit is set, and sent, only when its write is durable; `two-phase`: the accepting SP alone begins the exchange,
//! while it is undecided, and what it has rejected it never begins.

mod recovery;

use crate::{
    mutant::{self, Mutant},
    protocol::{
        Durable, Duration, Hash, IndexEntry, Instant, Manifest, Message, Micros, Mode, Outcome, Reason, SpId, SpSet,
        StoragePoint, Uid,
        api::ListedEntry,
        durable::{INLINE_LEN_MAX, InlineContent},
        index::Inserted,
        io::{Event, Ticket},
        message::{Refusal, Vector, Wanted as What},
        storage_point::Written,
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// How far the holding of a publication is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    /// Some of its contents are missing here.
    Fetching,
    /// Its write was asked for.
    Writing,
    /// Manifest and contents are durable.
    Durable,
}

/// How far this SP's own bit of a publication is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OwnBit {
    /// Not set (`two-phase`: stored, no more).
    Clear,
    /// Its write was asked for.
    Writing,
    /// Durable.
    Set,
}

/// A publication that this SP knows the manifest of.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) manifest: Arc<Manifest>,
    pub(super) hold: Hold,
    pub(super) own: OwnBit,
    pub(super) agreed: bool,
    /// When it became known agreed.
    pub(super) agreed_at: Instant,
    /// Taken over from another SP that knew it agreed.
    merged: bool,
    /// It entered the index, or would have if it were newer.
    pub(super) indexed: bool,
    pub(super) superseded_by: Option<Uid>,
    /// Bits known set, of the stores known here.
    pub(super) bits: SpSet,
    /// The bits that each peer is known to have.
    pub(super) heard: Vec<(SpId, SpSet)>,
    /// Attempts that wait for its outcome.
    pub(super) tickets: Vec<Ticket>,
    /// Small contents until they are written.
    pub(super) inline: Vec<InlineContent>,
    /// Contents to be fetched.
    pub(super) missing: BTreeSet<Hash>,
    interval: Duration,
    resend_at: Option<Instant>,
    /// `two-phase`, at the accepting SP: who has confirmed that it stores the publication.
    pub(super) confirmed: SpSet,
    /// `two-phase`, at the accepting SP: it may still begin the exchange, or reject.
    pub(super) undecided: bool,
    /// Paths of which it is the entry or a kept version.
    pub(super) kept_by: usize,
    /// Its contents are not kept on its behalf.
    pub(super) released: bool,
}

impl Publication {
    /// Neither agreed nor dropped.
    pub(super) fn is_pending(&self) -> bool {
        !self.agreed && self.superseded_by.is_none()
    }

    /// What is said again while it is pending: the vector; before there is one, the offer.
    fn reminder(&self) -> Message {
        match self.own {
            OwnBit::Set => Message::Vector(Vector { uid: self.manifest.uid, bits: self.bits }),
            OwnBit::Clear | OwnBit::Writing => {
                Message::Offer { manifest: self.manifest.clone(), contents: Vec::new(), agreed: false }
            }
        }
    }

    /// It is in the index, or a newer one of its paths is.
    pub(super) fn is_indexed(&self) -> bool {
        self.indexed
    }

    fn has_heard(&self, peer: SpId, bits: SpSet) -> bool {
        self.heard.iter().any(|(sp, known)| *sp == peer && known.covers(bits))
    }
}

impl StoragePoint {
    // ---- Replication ----------------------------------------------------------------------------------------------

    /// A publication of this SP's own: offered to all once the ceiling above its UID is durable.
    pub(super) fn offer(&mut self, manifest: Arc<Manifest>, contents: Vec<InlineContent>, tickets: Vec<Ticket>) {
        let uid = manifest.uid;
        for entry in manifest.entries.iter().filter(|entry| entry.size > INLINE_LEN_MAX) {
            self.contents.arrived(entry.hash);
            self.will_be_asked_for(entry.hash);
        }
        let message = Message::Offer { manifest: manifest.clone(), contents: contents.clone(), agreed: false };
        self.keep(manifest, contents, false);
        let undecided = self.config.mode == Mode::TwoPhase;
        if let Some(publication) = self.publications.get_mut(&uid) {
            publication.tickets = tickets;
            publication.undecided = undecided;
            if undecided {
                self.deciding.remember(&publication.manifest);
            }
        }
        self.tell(uid, message);
        self.write_if_whole(uid);
    }

    /// Sends to all; one of this SP's own UIDs only once a ceiling above it is durable.
    fn tell(&mut self, uid: Uid, message: Message) {
        if self.may_name(uid) {
            self.send_to_all(&message);
        } else {
            self.awaiting_ceiling.push((uid, message));
        }
    }

    /// Whether a message, or an outcome, may name `uid`: unless it is of this SP's present store and no ceiling above it
    /// is durable. What an earlier store has named is known to others.
    pub(super) fn may_name(&self, uid: Uid) -> bool {
        let is_own = uid.sp == self.config.me && uid.store == self.config.store.number;
        !is_own || self.clock.may_name(Micros(uid.micros))
    }

    /// A new ceiling is durable.
    pub(super) fn send_offers_that_waited(&mut self) {
        for (uid, message) in std::mem::take(&mut self.awaiting_ceiling) {
            self.tell(uid, message);
        }
    }

    pub(super) fn take_offer(
        &mut self,
        from: SpId,
        manifest: Arc<Manifest>,
        contents: Vec<InlineContent>,
        agreed: bool,
    ) {
        let uid = manifest.uid;
        let was_wanted = self.wanted.remove(uid);
        if self.publications.contains_key(&uid) {
            self.take_offer_again(from, uid, agreed);
            return self.pump_wanted();
        }
        if let Some(newest) = self.superseding(&manifest) {
            self.send(from, Message::Agreed { uid, newest });
            self.refuse_completion(uid, newest);
            self.settled(uid);
            return self.pump_wanted();
        }
        let agreed = agreed || was_wanted.as_ref().is_some_and(|wanted| wanted.agreed);
        if !agreed && self.now.wall.after(self.config.max_drift) < Micros(uid.micros) {
            let clock = self.now.wall;
            self.send(from, Message::Refuse { uid, cause: Refusal::ClockAhead, clock });
            return self.pump_wanted();
        }
        let is_right = |content: &InlineContent| {
            Hash::of(&content.bytes) == content.hash || mutant::active(Mutant::UnverifiedHash)
        };
        let right = contents.into_iter().filter(is_right).collect();
        if !agreed {
            self.clock.advance(Micros(uid.micros));
        }
        self.keep(manifest, right, agreed);
        if let (Some(wanted), Some(publication)) = (was_wanted, self.publications.get_mut(&uid)) {
            publication.bits = publication.bits.union(wanted.bits);
        }
        self.complete_those_that_waited(uid);
        self.fetch_missing(uid, from);
        self.write_if_whole(uid);
        self.pump_wanted();
    }

    /// An offer of a publication that is known here: its sender has not heard that, or knows more, and has the contents.
    fn take_offer_again(&mut self, from: SpId, uid: Uid, agreed: bool) {
        self.fetch_missing(uid, from);
        let Some(publication) = self.publications.get(&uid) else { return };
        if agreed && publication.is_pending() {
            self.take_agreed(from, uid, uid);
        } else if let Some(newest) = publication.superseded_by {
            self.send(from, Message::Agreed { uid, newest });
        } else if publication.hold == Hold::Durable {
            match publication.own {
                OwnBit::Clear => self.send(from, Message::Stored { uid }),
                OwnBit::Writing => {}
                OwnBit::Set => self.send(from, Message::Vector(Vector { uid, bits: publication.bits })),
            }
        }
    }

    /// Notes a publication that is new here, and which of its contents are missing.
    pub(super) fn keep(&mut self, manifest: Arc<Manifest>, contents: Vec<InlineContent>, agreed: bool) {
        let is_here =
            |hash: &Hash| self.contents.contains(hash) || contents.iter().any(|content| content.hash == *hash);
        let needed = manifest.entries.iter().filter(|entry| entry.size > 0);
        let missing = needed.map(|entry| entry.hash).filter(|hash| !is_here(hash)).collect();
        let uid = manifest.uid;
        if agreed {
            self.greatest = self.greatest.max(uid);
        }
        if agreed {
            self.keys.remember(&manifest);
        }
        for entry in &manifest.entries {
            self.pending_of_path.entry(entry.path.clone()).or_default().insert(uid);
        }
        let publication = Publication {
            manifest,
            hold: Hold::Fetching,
            own: OwnBit::Clear,
            agreed,
            agreed_at: self.now.instant,
            merged: agreed,
            indexed: false,
            superseded_by: None,
            bits: SpSet::EMPTY,
            heard: Vec::new(),
            tickets: Vec::new(),
            inline: contents,
            missing,
            interval: self.config.limits.resend_min,
            resend_at: None,
            confirmed: SpSet::EMPTY,
            undecided: false,
            kept_by: 0,
            released: false,
        };
        self.publications.insert(uid, publication);
    }

    /// Once all contents are here: manifest and contents in one durable write, with the own bit unless that has to wait
    /// for a quorum's confirmations.
    pub(super) fn write_if_whole(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if publication.hold != Hold::Fetching || !publication.missing.is_empty() || publication.superseded_by.is_some()
        {
            return;
        }
        // A content that was here when the offer came may have been let go since.
        let is_gone = |entry: &&crate::protocol::Entry| {
            entry.size > 0
                && !self.contents.contains(&entry.hash)
                && !publication.inline.iter().any(|content| content.hash == entry.hash)
        };
        publication.missing = publication.manifest.entries.iter().filter(is_gone).map(|entry| entry.hash).collect();
        if !publication.missing.is_empty() {
            return self.fetch_missing(uid, uid.sp);
        }
        publication.hold = Hold::Writing;
        let contents: Vec<InlineContent> = std::mem::take(&mut publication.inline)
            .into_iter()
            .filter(|content| !self.contents.contains(&content.hash))
            .collect();
        let manifest = publication.manifest.clone();
        let own_bit = self.own_bit_with_content(uid);
        // No sooner: while its contents are still to come nobody may ever hold it, and its key must not name it.
        if self.config.mode == Mode::Fused || mutant::active(Mutant::KeyCompletesUnstarted) {
            self.keys.remember(&manifest);
        }
        if let Some(publication) = self.publications.get_mut(&uid).filter(|_| own_bit) {
            publication.own = OwnBit::Writing;
        }
        self.persist(Durable::Held { manifest, contents, own_bit }, Some(Written::Held(uid)));
        if mutant::active(Mutant::BitBeforeDurable) {
            self.is_durable(uid);
        }
    }

    /// A small content has been fetched: it is written with the publications that wait for it.
    pub(super) fn content_is_here(&mut self, hash: Hash, inline: Option<InlineContent>, waiting: &BTreeSet<Uid>) {
        let awaits = |uid: &Uid| self.publications.get(uid).is_some_and(|one| one.missing.contains(&hash));
        match inline {
            None if waiting.iter().any(awaits) => self.contents.arrived(hash),
            None => self.contents.repaired(hash),
            Some(_) => {}
        }
        for uid in waiting {
            if let Some(publication) = self.publications.get_mut(uid)
                && publication.missing.remove(&hash)
            {
                publication.inline.extend(inline.clone());
                self.write_if_whole(*uid);
            }
        }
    }

    /// The write of a publication was refused (a full disk). Peers may hold it and agree on it all the same.
    pub(super) fn could_not_hold(&mut self, uid: Uid, detail: &str) {
        if self.join.is_some() {
            return self.hold_later(uid);
        }
        let Some(publication) = self.publications.remove(&uid) else { return };
        self.contents.give_up(&publication.manifest);
        for entry in &publication.manifest.entries {
            self.unlist_pending(&entry.path, uid);
        }
        self.keys.forget(&publication.manifest);
        self.deciding.forget(&publication.manifest);
        // While nothing may name it, its offer waits here, and leaves no more.
        let is_rejected = publication.undecided || !self.may_name(uid);
        self.awaiting_ceiling.retain(|(waiting, _)| *waiting != uid);
        for ticket in publication.tickets {
            let reason = Reason::Store { detail: detail.to_owned() };
            let outcome = match is_rejected {
                true => Outcome::Rejected { reason },
                false => Outcome::Undetermined { uid: Some(uid), superseded_by: None, reason },
            };
            self.finish(ticket, outcome);
        }
        let others: Vec<SpId> = publication.bits.iter().filter(|sp| *sp != self.config.me).collect();
        others.into_iter().for_each(|sp| self.want(uid, sp, publication.agreed));
    }

    // ---- Vectors --------------------------------------------------------------------------------------------------

    /// Manifest and contents are durable. If the own bit is with them it is told to all; else (`two-phase`) the
    /// accepting SP hears that they are stored.
    pub(super) fn is_durable(&mut self, uid: Uid) {
        let me = self.config.me;
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if publication.hold == Hold::Durable {
            return;
        }
        publication.hold = Hold::Durable;
        self.greatest = self.greatest.max(uid);
        let manifest = publication.manifest.clone();
        self.contents.keep(&manifest);
        let Publication { own, agreed, bits, undecided, .. } = self.publications[&uid];
        if let Some(join) = &mut self.join {
            join.is_durable_or_dropped(uid);
        }
        if own == OwnBit::Writing {
            self.own_bit_is_set(uid);
        } else if agreed || !bits.is_empty() {
            self.set_own_bit(uid);
            match agreed {
                true => self.enter_index(uid),
                false => self.count(uid),
            }
        } else if self.join.is_some() {
            // Its accepting SP will offer it again.
        } else if uid.sp != me {
            self.send(uid.sp, Message::Stored { uid });
            self.drop_if_superseded(uid);
        } else if undecided {
            self.schedule_resend(uid);
            self.take_confirmation(me, uid);
        }
    }

    /// Whether the own bit is written with manifest and contents.
    fn own_bit_with_content(&self, uid: Uid) -> bool {
        let is_known = |one: &Publication| one.agreed || !one.bits.is_empty();
        let joining = self.join.is_some() && mutant::active(Mutant::JoinSetsBitsOnUnstarted);
        self.config.mode == Mode::Fused || joining || self.publications.get(&uid).is_some_and(is_known)
    }

    /// `two-phase`: asks for the write of the own bit of a publication that is held.
    pub(super) fn set_own_bit(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if publication.hold != Hold::Durable || publication.own != OwnBit::Clear {
            return;
        }
        publication.own = OwnBit::Writing;
        self.persist(Durable::OwnBit { uid }, Some(Written::OwnBit(uid)));
        if mutant::active(Mutant::BitBeforeDurable) {
            self.own_bit_is_set(uid);
        }
    }

    /// The own bit is durable: it enters the vector, which is told to all.
    pub(super) fn own_bit_is_set(&mut self, uid: Uid) {
        let me = self.config.me;
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if publication.own == OwnBit::Set {
            return;
        }
        publication.own = OwnBit::Set;
        publication.bits = publication.bits.union(SpSet::one(me));
        self.keys.remember(&publication.manifest);
        let Publication { bits, agreed, superseded_by, .. } = *publication;
        if superseded_by.is_some() || (self.join.is_some() && !agreed) {
            return;
        }
        if agreed {
            return self.enter_index(uid);
        }
        self.tell(uid, Message::Vector(Vector { uid, bits }));
        self.schedule_resend(uid);
        self.count(uid);
        self.drop_if_superseded(uid);
    }

    /// `two-phase`: `from` stores the publication. With a quorum's confirmations the exchange begins.
    pub(super) fn take_confirmation(&mut self, from: SpId, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if !publication.undecided {
            return;
        }
        publication.confirmed = publication.confirmed.union(SpSet::one(from));
        let confirmed = publication.confirmed;
        if publication.hold == Hold::Durable && self.counts_as_quorum(confirmed) {
            self.decide(uid);
            self.set_own_bit(uid);
        }
    }

    /// `two-phase`: the accepting SP decides, to begin the exchange or never to.
    pub(super) fn decide(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        publication.undecided = false;
        let manifest = publication.manifest.clone();
        self.deciding.forget(&manifest);
    }

    /// As the storage point counts quorums.
    pub(super) fn counts_as_quorum(&self, set: SpSet) -> bool {
        let one_more = |sp: &SpId| self.quorum.is_quorum(set.union(SpSet::one(*sp)));
        self.quorum.is_quorum(set)
            || (mutant::active(Mutant::QuorumOneShort) && self.config.members.iter().any(one_more))
    }

    pub(super) fn take_vector(&mut self, from: SpId, vector: Vector) {
        let Vector { uid, bits } = vector;
        let bits = SpSet(bits.0 & self.valid_bits.0);
        let Some(publication) = self.publications.get_mut(&uid) else {
            return self.note_unknown(from, uid, bits);
        };
        let known = publication.bits;
        if !publication.is_pending() {
            // A vector sent before ours arrived is on its way together with it and needs no answer.
            let answered = publication.agreed_at.after(self.config.limits.resend_min) > self.now.instant;
            let newest = publication.superseded_by.unwrap_or(uid);
            publication.bits = known.union(bits);
            if !answered && (publication.hold == Hold::Durable || publication.superseded_by.is_some()) {
                self.send(from, Message::Agreed { uid, newest });
            }
            return;
        }
        publication.bits = known.union(bits);
        match publication.heard.iter_mut().find(|(sp, _)| *sp == from) {
            Some((_, heard)) => *heard = heard.union(bits),
            None => publication.heard.push((from, bits)),
        }
        if publication.hold != Hold::Durable {
            return;
        }
        let ours = publication.bits;
        if publication.own == OwnBit::Clear && !ours.is_empty() {
            self.set_own_bit(uid);
            self.count(uid);
        } else if ours == known && !bits.covers(ours) {
            self.send(from, Message::Vector(Vector { uid, bits: ours }));
        } else if ours != known {
            self.count(uid);
            if self.publications.get(&uid).is_some_and(Publication::is_pending) {
                self.relays.insert(uid);
                self.relay_at.get_or_insert(self.now.instant.after(self.config.limits.relay));
            }
        }
    }

    /// Bits of others are passed on to peers not known to have them, in a frame of their own ...
    pub(super) fn relay(&mut self) {
        self.relay_from(self.now.instant);
    }

    /// ... or with the frame of a commit, once they have waited half their time: sooner, most peers hear of them anyway.
    pub(super) fn relay_with_commit(&mut self) {
        self.relay_from(self.now.instant.after(self.config.limits.relay / 2));
    }

    fn relay_from(&mut self, due: Instant) {
        if self.relay_at.is_none_or(|at| at > due) {
            return;
        }
        self.relay_at = None;
        let connected: Vec<SpId> = self.connected().collect();
        for uid in std::mem::take(&mut self.relays) {
            let Some(publication) = self.publications.get(&uid).filter(|publication| publication.is_pending()) else {
                continue;
            };
            let bits = publication.bits;
            let lacking: Vec<SpId> =
                connected.iter().copied().filter(|peer| !publication.has_heard(*peer, bits)).collect();
            lacking.into_iter().for_each(|peer| self.send(peer, Message::Vector(Vector { uid, bits })));
        }
    }

    /// Pending vectors are sent again, with growing intervals.
    pub(super) fn resend(&mut self) {
        while let Some(&(at, uid)) = self.resends.first() {
            if at > self.now.instant {
                return;
            }
            self.resends.pop_first();
            let Some(publication) = self.publications.get_mut(&uid) else { continue };
            publication.resend_at = None;
            if publication.is_pending() && publication.hold == Hold::Durable {
                publication.interval = (publication.interval * 2).min(self.config.limits.resend_max);
                let message = publication.reminder();
                // What may not be named yet waits for its ceiling.
                if self.may_name(uid) {
                    self.send_to_all(&message);
                }
                self.schedule_resend(uid);
            }
        }
    }

    fn schedule_resend(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        let at = self.now.instant.after(self.random.jitter(publication.interval));
        if let Some(before) = publication.resend_at.replace(at) {
            self.resends.remove(&(before, uid));
        }
        self.resends.insert((at, uid));
    }

    /// It is said no more.
    pub(super) fn unschedule_resend(&mut self, uid: Uid) {
        let at = self.publications.get_mut(&uid).and_then(|publication| publication.resend_at.take());
        if let Some(at) = at {
            self.resends.remove(&(at, uid));
        }
    }

    /// All that is pending, to a peer that has just connected.
    pub(super) fn exchange_with(&mut self, peer: SpId) {
        let may_be_named = self.resends.iter().filter(|(_, uid)| self.may_name(*uid));
        let pending = may_be_named.filter_map(|(_, uid)| self.publications.get(uid));
        let reminders: Vec<Message> = pending.map(Publication::reminder).collect();
        reminders.into_iter().for_each(|message| self.send(peer, message));
    }

    // ---- Agreement ------------------------------------------------------------------------------------------------

    /// A quorum of bits is agreement.
    fn count(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get(&uid) else { return };
        if publication.is_pending() && publication.hold == Hold::Durable && self.counts_as_quorum(publication.bits) {
            self.mark_agreed(uid);
        }
    }

    pub(super) fn mark_agreed(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        publication.agreed = true;
        publication.agreed_at = self.now.instant;
        self.unschedule_resend(uid);
        self.greatest = self.greatest.max(uid);
        let Some(publication) = self.publications.get(&uid) else { return };
        let (is_held, own, undecided) = (publication.hold == Hold::Durable, publication.own, publication.undecided);
        self.keys.remember(&publication.manifest);
        if undecided {
            self.decide(uid);
        }
        if is_held && own == OwnBit::Clear {
            self.set_own_bit(uid);
        }
        if is_held || mutant::active(Mutant::IndexBeforeContent) {
            self.enter_index(uid);
        }
    }

    /// A publication that is held and agreed enters the index where it is the newest of its path.
    fn enter_index(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if std::mem::replace(&mut publication.indexed, true) {
            return;
        }
        let (manifest, merged) = (publication.manifest.clone(), publication.merged);
        let tickets = std::mem::take(&mut publication.tickets);
        publication.heard = Vec::new();
        self.status.agreed_total += 1;
        self.persist_lazily(Durable::Agreed { uid });
        self.index_entries(&manifest);
        if merged {
            for entry in &manifest.entries {
                let entry = ListedEntry::of_publication(uid, entry);
                self.event(Event::Merged { entry });
            }
        } else {
            self.event(Event::Agreed { manifest: manifest.clone() });
        }
        for ticket in tickets {
            self.finish(ticket, Outcome::Accepted { uid });
        }
        self.settled(uid);
        for entry in &manifest.entries {
            let pending = self.pending_of_path.get(&entry.path);
            let older: Vec<Uid> = pending.into_iter().flatten().copied().filter(|other| *other < uid).collect();
            older.into_iter().for_each(|other| self.drop_if_superseded(other));
        }
    }

    fn index_entries(&mut self, manifest: &Manifest) {
        let uid = manifest.uid;
        if let Some(publication) = self.publications.get_mut(&uid) {
            publication.kept_by += manifest.entries.len();
        }
        for entry in &manifest.entries {
            self.unlist_pending(&entry.path, uid);
            let crate::protocol::Entry { hash, size, flags, ref content_type, .. } = *entry;
            let indexed = IndexEntry { uid, hash, size, content_type: content_type.clone(), flags };
            match self.index.insert(&entry.path, indexed) {
                Inserted::Newest { replaced } => {
                    self.changed(&entry.path);
                    replaced.into_iter().for_each(|before| self.keep_version(&entry.path, before));
                }
                // It has come late, and is a version of before.
                Inserted::Older => self.keep_version(&entry.path, uid),
            }
        }
        self.entered_since_root(uid);
    }

    pub(super) fn unlist_pending(&mut self, path: &crate::protocol::Path, uid: Uid) {
        if let Some(pending) = self.pending_of_path.get_mut(path) {
            pending.remove(&uid);
            if pending.is_empty() {
                self.pending_of_path.remove(path);
            }
        }
    }

    /// The least UID that supersedes `manifest` on all its paths, by this SP's own index.
    pub(super) fn superseding(&self, manifest: &Manifest) -> Option<Uid> {
        let newer = |entry: &crate::protocol::Entry| {
            let current = self.index.lookup(entry.path.as_str()).map(|current| current.uid);
            let held = match mutant::active(Mutant::DropWithoutAgreed) {
                true => self.pending_of_path.get(&entry.path).and_then(|pending| pending.last().copied()),
                false => None,
            };
            current.max(held).filter(|uid| *uid >= manifest.uid)
        };
        let all: Option<Vec<Uid>> = manifest.entries.iter().map(newer).collect();
        all.and_then(|uids| uids.into_iter().min())
    }

    /// A pending publication of which all paths have a newer agreed entry here is dropped; of one that is agreed, and of
    /// which contents are missing, the key and the outcome stay.
    fn drop_if_superseded(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get(&uid) else { return };
        if publication.agreed && self.join.is_none() {
            return self.remember_if_superseded(uid);
        }
        if !publication.is_pending() || publication.hold == Hold::Writing {
            return;
        }
        let Some(by) = self.superseding(&publication.manifest).filter(|by| *by > uid) else { return };
        if self.join.is_some() && publication.hold == Hold::Fetching && !publication.bits.is_empty() {
            // Another SP has set its own bit: key and outcome are taken over, though the contents have not come.
            return self.remember(uid, Some(by));
        }
        let tickets = publication.tickets.clone();
        self.persist_lazily(Durable::Dropped { uid, superseded_by: by });
        self.forget_pending(uid, by);
        for ticket in tickets {
            let reason = Reason::Superseded { by };
            self.finish(ticket, Outcome::Undetermined { uid: Some(uid), superseded_by: Some(by), reason });
        }
        self.event(Event::Dropped { uid, superseded_by: by });
    }

    /// Attempts under a key wait for a publication that turns out superseded before it came.
    fn refuse_completion(&mut self, uid: Uid, by: Uid) {
        let awaited = self.awaited.remove(uid);
        for ticket in awaited.into_iter().flat_map(|awaited| awaited.attempts.into_keys()) {
            let reason = Reason::Superseded { by };
            self.finish(ticket, Outcome::Undetermined { uid: Some(uid), superseded_by: Some(by), reason });
        }
    }

    /// `uid` is pending no more: `by` supersedes it. Its key and outcome stay.
    pub(super) fn forget_pending(&mut self, uid: Uid, by: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        publication.superseded_by = Some(by);
        publication.undecided = false;
        publication.agreed_at = self.now.instant;
        publication.tickets = Vec::new();
        publication.inline = Vec::new();
        let manifest = publication.manifest.clone();
        let is_held = publication.hold == Hold::Durable;
        let missing = std::mem::take(&mut publication.missing);
        self.unschedule_resend(uid);
        self.stop_waiting(uid, &missing);
        if !is_held {
            self.contents.give_up(&manifest);
        }
        self.deciding.forget(&manifest);
        if mutant::active(Mutant::DropForgetsKey) {
            self.keys.forget(&manifest);
        }
        for entry in &manifest.entries {
            self.unlist_pending(&entry.path, uid);
        }
        if let Some(join) = &mut self.join {
            join.is_durable_or_dropped(uid);
        }
        self.settled(uid);
        if is_held {
            self.release_later(uid);
        } else {
            self.retire(uid);
        }
    }

    /// A peer says that `uid` is agreed, or that `newest`, agreed, supersedes it.
    pub(super) fn take_agreed(&mut self, from: SpId, uid: Uid, newest: Uid) {
        if newest > uid && !self.publications.contains_key(&uid) {
            self.wanted.remove(uid);
            self.await_instead(uid, newest);
            self.refuse_completion(uid, newest);
        }
        match self.publications.get(&newest) {
            None => self.want(newest, from, true),
            Some(publication) if publication.is_pending() => self.mark_agreed(newest),
            Some(_) => {}
        }
        self.fetch_missing(newest, from);
        let is_pending = self.publications.get(&uid).is_some_and(Publication::is_pending);
        if mutant::active(Mutant::DropWithoutContent) && is_pending && newest > uid {
            self.forget_pending(uid, newest);
        }
        self.drop_if_superseded(uid);
    }

    pub(super) fn take_refusal(&mut self, from: SpId, uid: Uid, cause: Refusal, clock: Micros) {
        self.note_clock(from, clock);
        self.event(Event::PeerProblem { peer: from, detail: format!("refuses to store {uid}: {cause:?}") });
    }

    pub(super) fn answer_publication_request(&mut self, from: SpId, uid: Uid) {
        let missing = Message::Missing { what: What::Publication(uid) };
        let Some(publication) = self.publications.get(&uid) else { return self.send(from, missing) };
        let (manifest, agreed) = (publication.manifest.clone(), publication.agreed);
        let newest = match publication.released && agreed {
            true => self.superseding(&manifest).filter(|newest| *newest > uid),
            false => publication.superseded_by,
        };
        let message = match newest {
            Some(newest) => Message::Agreed { uid, newest },
            None if publication.hold == Hold::Durable && !publication.released => {
                Message::Offer { manifest, contents: Vec::new(), agreed }
            }
            None => missing,
        };
        self.send(from, message);
    }
}
