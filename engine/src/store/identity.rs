//! Whose store this is: a small text file, written once.

use super::{Storage, StorageFile, StoreError};
use crate::protocol::{SpId, StoreId};
use std::io;

/// Whose store this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreIdentity {
    /// The cluster's name.
    pub cluster: String,
    /// The storage point.
    pub sp: SpId,
    /// Which of its stores.
    pub store: StoreId,
}

pub(super) const IDENTITY_NAME: &str = "identity";
const IDENTITY_LEN_MAX: u64 = 4096;

impl StoreIdentity {
    /// The file's text: `acms store 1`, the three fields, and the crc32c of all lines before it.
    pub(super) fn encode(&self) -> String {
        let StoreId { number, nonce } = self.store;
        let text = format!("acms store 1\ncluster {}\nsp {}\nstore {number} {nonce:016x}\n", self.cluster, self.sp);
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    /// The one identity that encodes to `text`.
    pub(super) fn decode(text: &str) -> Result<StoreIdentity, StoreError> {
        let corrupt =
            || StoreError::Corrupt { file: IDENTITY_NAME.into(), offset: 0, what: "not an identity with its checksum" };
        let mut lines = text.lines();
        let head = lines.next().ok_or_else(corrupt)?;
        if head != "acms store 1" && head.starts_with("acms store ") {
            return Err(StoreError::Unknown {
                file: IDENTITY_NAME.into(),
                offset: 0,
                what: head.chars().take(40).collect(),
            });
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let parse = || {
            let cluster = field("cluster")?.to_owned();
            let sp = SpId(field("sp")?.parse().ok()?);
            let (number, nonce) = field("store")?.split_once(' ')?;
            let store = StoreId { number: number.parse().ok()?, nonce: u64::from_str_radix(nonce, 16).ok()? };
            Some(StoreIdentity { cluster, sp, store })
        };
        let mut parse = parse;
        parse().filter(|identity| identity.encode() == text).ok_or_else(corrupt)
    }

    /// Eight bytes that enter every checksum of the log, so that records of another store, or bytes that a publisher
    /// makes up, are no records here.
    pub(super) fn binding(&self) -> [u8; 8] {
        let hash = blake3::hash(self.encode().as_bytes());
        hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")
    }

    pub(super) fn read<S: Storage>(storage: &S) -> Result<StoreIdentity, StoreError> {
        let file = match storage.open(IDENTITY_NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Absent),
            opened => opened.map_err(StoreError::io("opening the store's identity"))?,
        };
        let len = file.len().map_err(StoreError::io("reading the store's identity"))?;
        let mut bytes = vec![0; len.min(IDENTITY_LEN_MAX) as usize];
        file.read_at(0, &mut bytes).map_err(StoreError::io("reading the store's identity"))?;
        StoreIdentity::decode(&String::from_utf8_lossy(&bytes))
    }

    pub(super) fn write<S: Storage>(&self, storage: &S) -> Result<(), StoreError> {
        let text = self.encode();
        let temporary = "preparing-identity";
        let write = || {
            let file = storage.create(temporary, text.len() as u64)?;
            file.write_at(0, text.as_bytes())?;
            file.sync_data()?;
            storage.rename(temporary, IDENTITY_NAME)?;
            storage.sync_dir()
        };
        write().map_err(StoreError::io("writing the store's identity"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_any_changed_byte_is_noticed() {
        let identity =
            StoreIdentity { cluster: "demo".into(), sp: SpId(3), store: StoreId { number: 2, nonce: 0xfeed } };
        let text = identity.encode();
        assert_eq!(StoreIdentity::decode(&text).unwrap(), identity);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(StoreIdentity::decode(&String::from_utf8_lossy(&bytes)).is_err(), "byte {at}");
        }
    }
}
