//! What the requests of all connections share.

use crate::{
    protocol::{Now, StoragePoint},
    runtime::{
        config::StoragePointConfig,
        http::{answer::HttpDate, connection::ConnectionId, service::HttpCounters},
        storage_point::{
            access::Access, broken::BrokenBodies, completion::UploadId, content::Job, environment::Io, held::Holds,
            publish::PublishMeta, status::Counters,
        },
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// The protocol, what it needs, and what requests are waiting for.
pub(super) struct Core {
    pub(super) sp: StoragePoint,
    pub(super) io: Io,
    pub(super) config: StoragePointConfig,
    /// Who may do what.
    pub(super) access: Access,
    pub(super) holds: Holds,
    /// Bodies at the content thread.
    pub(super) uploads: BTreeMap<UploadId, Upload>,
    /// Those of them whose publishers are gone, for now.
    pub(super) broken: BrokenBodies,
    next_upload: u64,
    /// Shared by each body that is coming in: its count is their number.
    pub(super) receiving: Arc<()>,
    /// Read at the start of the cycle and again before time-outs.
    pub(super) now: Now,
    pub(super) date: HttpDate,
    pub(super) started: Now,
    pub(super) counters: Counters,
    pub(super) http: HttpCounters,
    /// The process is ending: no connection stays open.
    pub(super) stopping: bool,
}

/// A body at the content thread.
#[derive(Debug)]
pub(super) struct Upload {
    /// Who sends it.
    pub(super) from: ConnectionId,
    /// All of it is here and to be published so, once it is durable.
    pub(super) complete: Option<PublishMeta>,
}

impl Core {
    pub(super) fn new(sp: StoragePoint, io: Io, config: StoragePointConfig, access: Access, now: Now) -> Core {
        Core {
            sp,
            io,
            config,
            access,
            holds: Holds::default(),
            uploads: BTreeMap::new(),
            broken: BrokenBodies::default(),
            next_upload: 0,
            receiving: Arc::new(()),
            now,
            date: HttpDate::default(),
            started: now,
            counters: Counters::default(),
            http: HttpCounters::default(),
            stopping: false,
        }
    }

    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
        self.date.update(now.wall.0 / 1_000_000);
    }

    pub(super) fn begin_upload(&mut self, id: ConnectionId) -> UploadId {
        let upload = UploadId(self.next_upload);
        self.next_upload += 1;
        self.uploads.insert(upload, Upload { from: id, complete: None });
        upload
    }

    /// The publisher is gone, or its request refused.
    pub(super) fn abort_upload(&mut self, upload: UploadId) {
        if self.uploads.remove(&upload).is_some() {
            self.io.content.give(Job::UploadAbort { upload });
        }
    }
}
