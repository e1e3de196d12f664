//! Packets of hosts in files that packet analysers read (pcap, with times in nanoseconds).

use super::{HostId, lock};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Says the byte order, and that times have nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Packets that travel together are one.
const PACKET_LEN_MAX: u32 = 65_535;
/// Each begins with its IP head.
const LINK_RAW: u32 = 101;

/// The hosts whose packets are written down.
#[derive(Default, Debug)]
pub(super) struct Captures {
    /// Whether there are any: most runs have none, and ask for each packet.
    are_there: AtomicBool,
    files: Mutex<BTreeMap<HostId, Capture>>,
}

#[derive(Debug)]
struct Capture {
    out: BufWriter<File>,
    /// What went wrong first; nothing is written after it.
    failed: Option<io::Error>,
}

impl Captures {
    /// Writes the packets of a host from now on.
    pub(super) fn begin(&self, host: HostId, file: File) -> io::Result<()> {
        lock(&self.files).insert(host, Capture::new(file)?);
        self.are_there.store(true, Ordering::Release);
        Ok(())
    }

    /// A packet of a host passes now.
    pub(super) fn add(&self, host: HostId, packet: &[u8]) {
        if !self.are_there.load(Ordering::Acquire) {
            return;
        }
        if let Some(capture) = lock(&self.files).get_mut(&host).filter(|capture| capture.failed.is_none()) {
            capture.failed = capture.add(packet).err();
        }
    }

    /// Ends all; what went wrong first.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.are_there.store(false, Ordering::Release);
        let files = std::mem::take(&mut *lock(&self.files));
        files.into_values().try_for_each(|mut capture| capture.failed.take().map_or_else(|| capture.out.flush(), Err))
    }
}

impl Capture {
    fn new(file: File) -> io::Result<Capture> {
        let mut out = BufWriter::new(file);
        out.write_all(&MAGIC.to_ne_bytes())?;
        VERSION.iter().try_for_each(|part| out.write_all(&part.to_ne_bytes()))?;
        // The time zone, and how exact times are, which nobody fills in.
        [0, 0, PACKET_LEN_MAX, LINK_RAW].iter().try_for_each(|field| out.write_all(&u32::to_ne_bytes(*field)))?;
        Ok(Capture { out, failed: None })
    }

    fn add(&mut self, packet: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = packet.len() as u32;
        let fields = [now.as_secs() as u32, now.subsec_nanos(), len, len];
        fields.iter().try_for_each(|field| self.out.write_all(&field.to_ne_bytes()))?;
        self.out.write_all(packet)
    }
}
