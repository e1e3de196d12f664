//! What a storage point knows, laid open for checks against the specification. Nothing here changes anything.

use crate::protocol::{
    Micros, SpId, SpSet, StoragePoint, Uid,
    exchange::{Hold, OwnBit},
    io::{Output, Ticket},
    message::RequestId,
    order::TicketState,
};
use std::collections::BTreeMap;

/// A view of one storage point. It costs time and memory in proportion to everything that the storage point remembers:
/// for small clusters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inspection {
    /// Whether its store is still being filled.
    pub joining: bool,
    /// The number of the newest store known of each SP, its own included. SPs that were never heard of are missing.
    pub stores: BTreeMap<SpId, u32>,
    /// Publications whose manifest is here.
    pub publications: BTreeMap<Uid, Known>,
    /// Order queries that are out.
    pub queries: BTreeMap<RequestId, Asking>,
    /// Submissions without an outcome, and the publication that each one is once that has a name.
    pub tickets: BTreeMap<Ticket, Option<Uid>>,
    /// Nothing accepted before is missing, durably.
    pub as_of: Micros,
    /// The same, as it was last asked to be written.
    pub as_of_asked: Micros,
    /// The as-of round under way.
    pub as_of_round: Option<RequestId>,
}

/// A publication whose manifest is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Manifest and contents are durable; the contents of what is agreed are kept.
    pub held: bool,
    /// Only remembered: it is agreed, and its contents are not kept.
    pub remembered: bool,
    /// Their write was asked for; if neither, contents are still missing.
    pub writing: bool,
    /// The own bit is durable.
    pub own_bit: bool,
    /// The write of the own bit was asked for, apart from manifest and contents.
    pub own_bit_asked: bool,
    /// A message may name it.
    pub may_be_named: bool,
    /// Known agreed.
    pub agreed: bool,
    /// Dropped, superseded by this one.
    pub superseded_by: Option<Uid>,
    /// Bits known set.
    pub bits: SpSet,
    /// Publisher and idempotency key.
    pub key: Option<(String, String)>,
    /// What that key names here.
    pub key_names: Option<Uid>,
}

/// An order query that is out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asking {
    /// By place in the query: the tickets that wait.
    pub tickets: Vec<Vec<Ticket>>,
    /// Whose answers were taken, the own one among them.
    pub answered: SpSet,
}

impl StoragePoint {
    /// What it has asked for since outputs were last taken.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter()
    }

    /// What this storage point knows.
    pub fn inspect(&self) -> Inspection {
        let stores = self.stores.iter().map(|(sp, store)| (*sp, store.number)).collect();
        let publications = self.publications.iter().map(|(uid, publication)| {
            let key = publication.manifest.key.clone().map(|key| (publication.manifest.publisher.clone(), key));
            let known = Known {
                held: publication.hold == Hold::Durable && !(publication.agreed && publication.released),
                remembered: publication.hold == Hold::Durable && publication.agreed && publication.released,
                writing: publication.hold == Hold::Writing,
                own_bit: publication.own == OwnBit::Set,
                own_bit_asked: publication.hold == Hold::Durable && publication.own == OwnBit::Writing,
                may_be_named: self.may_name(*uid),
                agreed: publication.agreed,
                superseded_by: publication.superseded_by,
                bits: publication.bits,
                key_names: key.as_ref().and_then(|(publisher, key)| self.named_by(publisher, key)),
                key,
            };
            (*uid, known)
        });
        let queries = self.queries.values().map(|query| {
            let waiting = |first: &Ticket| self.waiting.get(*first).map(|waiting| waiting.tickets.clone());
            let tickets = query.places.iter().map(|first| waiting(first).unwrap_or_default()).collect();
            (query.request, Asking { tickets, answered: query.answered() })
        });
        let tickets = self.tickets.iter().map(|(ticket, state)| {
            let uid = match state {
                TicketState::Waiting { .. } => None,
                TicketState::Named { uid, .. } => Some(*uid),
            };
            (*ticket, uid)
        });
        let (as_of, as_of_asked, as_of_round) = self.freshness.inspect();
        Inspection {
            as_of,
            as_of_asked,
            as_of_round,
            joining: self.join.is_some(),
            stores,
            publications: publications.collect(),
            queries: queries.collect(),
            tickets: tickets.collect(),
        }
    }
}
