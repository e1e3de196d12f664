//! Publications whose contents nobody needs any more before they were here: their keys and outcomes stay.

use crate::protocol::{
    Durable, Outcome, StoragePoint, Uid,
    exchange::{Hold, OwnBit},
    io::Event,
};

impl StoragePoint {
    /// Only remembers `uid` if it is agreed, contents of it are missing, and all its paths have a newer entry here.
    pub(super) fn remember_if_superseded(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get(&uid) else { return };
        let is_known_only = publication.agreed && publication.hold == Hold::Fetching;
        if is_known_only && self.superseding(&publication.manifest).is_some_and(|by| by > uid) {
            self.remember(uid, None);
        }
    }

    /// Notes durably that `uid`, of which contents are missing here, was agreed and is superseded by now; or, with
    /// `dropped_for`, that it was dropped for that one. Nobody may have its contents any more, so nothing waits for it.
    pub(super) fn remember(&mut self, uid: Uid, dropped_for: Option<Uid>) {
        let Some(publication) = self.publications.get_mut(&uid).filter(|one| one.hold == Hold::Fetching) else {
            return;
        };
        (publication.hold, publication.own, publication.released) = (Hold::Durable, OwnBit::Set, true);
        publication.inline = Vec::new();
        let was_dropped = publication.superseded_by.is_some();
        let missing = std::mem::take(&mut publication.missing);
        let manifest = publication.manifest.clone();
        self.stop_waiting(uid, &missing);
        self.contents.give_up(&manifest);
        self.keys.remember(&manifest);
        self.persist(Durable::Held { manifest, contents: Vec::new(), own_bit: true }, None);
        self.persist(Durable::Released { uid }, None);
        if !was_dropped {
            self.retired.push_back(uid);
        }
        match dropped_for {
            Some(superseded_by) => {
                self.persist(Durable::Dropped { uid, superseded_by }, None);
                if !was_dropped {
                    self.forget_pending(uid, superseded_by);
                    self.event(Event::Dropped { uid, superseded_by });
                }
            }
            None => {
                self.persist(Durable::Agreed { uid }, None);
                self.is_remembered(uid);
            }
        }
    }

    /// `uid` is agreed, superseded, and kept without its contents.
    fn is_remembered(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        (publication.agreed, publication.indexed) = (true, true);
        publication.agreed_at = self.now.instant;
        publication.heard = Vec::new();
        let tickets = std::mem::take(&mut publication.tickets);
        let manifest = publication.manifest.clone();
        self.greatest = self.greatest.max(uid);
        for entry in &manifest.entries {
            self.unlist_pending(&entry.path, uid);
        }
        for ticket in tickets {
            self.finish(ticket, Outcome::Accepted { uid });
        }
        if let Some(join) = &mut self.join {
            join.is_durable_or_dropped(uid);
        }
        self.settled(uid);
    }
}
