//! A file that grows as its content comes, and may become very large.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Bytes between two flushes.
const FLUSH_LEN: u64 = 1 << 20;

/// Appends to a file of `len` bytes, and flushes it with each MiB that is full.
///
/// With nothing but a flush at its end, whoever else writes to that disk would wait until all of it is written; and not
/// only at its end: where data go before the journal (ext4), anybody's next small flush takes along what is there.
pub(crate) fn append(file: &File, len: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, len)?;
    let is_full = len / FLUSH_LEN < (len + bytes.len() as u64) / FLUSH_LEN;
    if is_full { file.sync_data() } else { Ok(()) }
}
