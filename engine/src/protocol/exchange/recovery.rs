//! What a start makes of the records of publications in the log.

use super::{Hold, OwnBit};
use crate::{
    mutant::{self, Mutant},
    protocol::{Instant, Manifest, SpSet, StoragePoint, Uid},
};
use std::{collections::BTreeSet, sync::Arc};

impl StoragePoint {
    pub(in crate::protocol) fn recover_held(&mut self, manifest: Arc<Manifest>, own_bit: bool) {
        let uid = manifest.uid;
        if !self.publications.contains_key(&uid) {
            self.contents.keep(&manifest);
            self.keep(manifest, Vec::new(), false);
        }
        if let Some(publication) = self.publications.get_mut(&uid) {
            publication.hold = Hold::Durable;
            publication.missing = BTreeSet::new();
            if mutant::active(Mutant::KeyCompletesUnstarted) {
                self.keys.remember(&publication.manifest);
            }
        }
        self.greatest = self.greatest.max(uid);
        if own_bit {
            self.recover_own_bit(uid);
        }
    }

    pub(in crate::protocol) fn recover_own_bit(&mut self, uid: Uid) {
        if let Some(publication) = self.publications.get_mut(&uid) {
            publication.own = OwnBit::Set;
            publication.bits = publication.bits.union(SpSet::one(self.config.me));
            self.keys.remember(&publication.manifest);
        }
    }

    pub(in crate::protocol) fn recover_agreed(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        publication.agreed = true;
        publication.agreed_at = Instant(0);
        if std::mem::replace(&mut publication.indexed, true) {
            return;
        }
        let manifest = publication.manifest.clone();
        self.keys.remember(&manifest);
        if publication.released {
            manifest.entries.iter().for_each(|entry| self.unlist_pending(&entry.path, uid));
        } else {
            self.index_entries(&manifest);
        }
    }

    /// What was pending when the process ended is pending again. `two-phase`: what was only stored waits for a sign that
    /// the exchange has begun; this SP's own is presumed aborted.
    pub(in crate::protocol) fn schedule_recovered(&mut self) {
        let pending = self.publications.iter().filter(|(_, publication)| publication.is_pending());
        let pending: Vec<(Uid, OwnBit)> = pending.map(|(uid, publication)| (*uid, publication.own)).collect();
        for (uid, own) in pending {
            if own == OwnBit::Set {
                self.schedule_resend(uid);
                self.count(uid);
            } else if mutant::active(Mutant::RestartStartsExchange) && uid.sp == self.config.me {
                self.set_own_bit(uid);
            }
            self.drop_if_superseded(uid);
        }
    }
}
