//! Names of what happens.

use std::{fmt, str::FromStr};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What an event says.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// Its name in the trace and in the processes' event lines.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$variant => $name,)*
                }
            }
        }

        impl FromStr for Kind {
            type Err = UnknownKind;

            fn from_str(name: &str) -> Result<Kind, UnknownKind> {
                match name {
                    $($name => Ok(Kind::$variant),)*
                    _ => Err(UnknownKind(name.chars().take(40).collect())),
                }
            }
        }
    };
}

kinds! {
    // Said by storage points and receivers.
    /// The process serves, or follows a source.
    Ready = "ready",
    /// A storage point came to know that a publication is agreed.
    Agreed = "agreed",
    /// A storage point took an entry over from another's index.
    Merged = "merged",
    /// A storage point told a publisher so.
    Accepted = "accepted",
    /// A storage point told a publisher so.
    Rejected = "rejected",
    /// A storage point told a publisher so.
    Undetermined = "undetermined",
    /// A storage point's own bit of a publication is durable; `cause` is the number of the store that has it. `outcome`
    /// `content-missing`: its content is not there.
    Stored = "stored",
    /// What a process has from its former life: first one event without a path, then one for each entry.
    Recovered = "recovered",
    /// A storage point whose store is new has been filled by the others.
    Joined = "joined",
    /// A pending publication gave way to a newer one.
    Dropped = "dropped",
    /// A link between storage points works.
    LinkUp = "link_up",
    /// A link between storage points is gone.
    LinkDown = "link_down",
    /// The process was asked to stop.
    Stopping = "stopping",
    /// A receiver follows another source.
    Source = "source",
    /// A receiver holds verified content in memory: the delivery.
    Verified = "verified",
    /// A receiver has the entry durably in its directory.
    Applied = "applied",
    /// What a receiver's directory has at a path right after its power failed in the middle of a batch.
    Exposed = "exposed",
    /// A receiver cannot hold a path.
    Blocked = "blocked",
    /// Something failed that will be tried again.
    Error = "error",
    /// A receiver has applied all of a snapshot; `cause` is its as-of in microseconds since 1970.
    Current = "current",
    /// A storage point serves this as-of: `cause`, in microseconds since 1970.
    AsOf = "as_of",

    // Said by the testbed.
    /// What was run: `outcome` names a setting, `cause` is its value. At the start of a trace.
    Config = "config",
    /// The true wall clock at this time: `cause`, in microseconds since 1970. At the start of a trace.
    Wall = "wall",
    /// How far the process's wall clock is ahead of the true one from now on: `cause`, in microseconds, then, if it is
    /// not 0, the drift in parts per million: `-1500 20`. Without such events a clock is right.
    Clock = "clock",
    /// A process was started.
    Start = "start",
    /// A process has ended.
    Exit = "exit",
    /// What a process is subscribed to.
    Subscribe = "subscribe",
    /// A stretch of the run begins; `cause` names it.
    Phase = "phase",
    /// When an attempt at publishing was due.
    Scheduled = "scheduled",
    /// An attempt at publishing was begun. `uid` is the greatest UID that the publisher said it knows, if any; `cause`
    /// says where, and `order=fast` if the attempt asked for that.
    Invoke = "invoke",
    /// What the publisher was told.
    Outcome = "outcome",
    /// A fault was injected and seen to work.
    Fault = "fault",
    /// A fault was undone and seen to be.
    FaultUndone = "fault_undone",
    /// A fault has damaged a stored content of the process.
    Rotted = "rotted",
    /// A client could not read a content that the process's index names.
    Unread = "unread",
    /// Not all came to rest in time; `cause` says what did not.
    Unsettled = "unsettled",
    /// The steps of the storage points were replayed in the specification: `outcome` `allowed`, or `not-allowed` and
    /// `cause` why.
    Refined = "refined",
    /// A round trip from the process to the host that `outcome` names was measured: `cause` says what the model of the
    /// network wanted and what it was, `asked_us=20100 got_us=20350`.
    Probe = "probe",
    /// What the emulated network has done with packets until a phase began: `cause`, such as `arrived=900 late=1 lost=7
    /// cut=0 refused=0`.
    Carried = "carried",
    /// What the machine's processors have spent their time on until a phase began: `cause`, such as `processors=2 busy=700
    /// idle=90 stolen=3`, in ticks.
    Machine = "machine",
    /// Processor time and memory of a process.
    Usage = "usage",
    /// An entry of a storage point's index at the end.
    AuditSp = "audit_sp",
    /// An entry of a receiver's state at the end.
    AuditState = "audit_state",
    /// A file in a receiver's directory at the end.
    AuditFile = "audit_file",
    /// All that the audit of a process found has been said.
    AuditEnd = "audit_end",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event of a kind that this version does not know.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown kind of event {0:?}")]
pub struct UnknownKind(pub String);
