//! Packets of a host in a file that packet analysers read (pcap, with times in nanoseconds).

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

/// Says the byte order, and that times have nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// Packets that travel together are one.
const PACKET_LEN_MAX: u32 = 65_535;
/// Each begins with its IP head.
const LINK_RAW: u32 = 101;

/// Such a file, while it is written.
#[derive(Debug)]
pub(super) struct Capture(BufWriter<File>);

impl Capture {
    pub(super) fn new(file: File) -> io::Result<Capture> {
        let mut out = BufWriter::new(file);
        out.write_all(&MAGIC.to_ne_bytes())?;
        VERSION.iter().try_for_each(|part| out.write_all(&part.to_ne_bytes()))?;
        // The time zone, and how exact times are, which nobody fills in.
        [0, 0, PACKET_LEN_MAX, LINK_RAW].iter().try_for_each(|field| out.write_all(&u32::to_ne_bytes(*field)))?;
        Ok(Capture(out))
    }

    /// Adds a packet that passes now.
    pub(super) fn add(&mut self, packet: &[u8]) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = packet.len() as u32;
        let fields = [now.as_secs() as u32, now.subsec_nanos(), len, len];
        fields.iter().try_for_each(|field| self.0.write_all(&field.to_ne_bytes()))?;
        self.0.write_all(packet)
    }
}
