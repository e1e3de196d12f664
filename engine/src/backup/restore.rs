//! Filling the stores of a new cluster from a backup.

use super::{BackupError, CONTENTS, FORMAT, HEAD, Head, VERSIONS, hash_of, place_of};
use crate::{
    protocol::{
        Durable, Entry, Hash, Manifest, Micros, Uid,
        api::Version,
        durable::{INLINE_LEN_MAX, InlineContent},
    },
    runtime::clock,
    store::{DirStorage, Opened, Store, StoreIdentity},
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Store numbers of a restored cluster are so far above the backup's: stores that were made after it must not share
/// their incarnations, which cursors that receivers and caches hold name.
const STORE_NUMBERS_LEFT: u32 = 1_000;
/// A commit has so many publications at most, and about so many bytes of contents.
const COMMIT_RECORDS: usize = 512;
const COMMIT_LEN: usize = 2 << 20;

/// A backup that was looked through: all of it is as it was when it was made.
#[derive(Debug)]
pub struct Backup {
    /// What it is of.
    pub head: Head,
    directory: PathBuf,
    /// Ascending by UID.
    manifests: Vec<Arc<Manifest>>,
}

/// Opens the backup in `directory`, and compares all of it with what it should be.
pub fn open(directory: &Path) -> Result<Backup, BackupError> {
    let name = directory.join(HEAD);
    let text = fs::read(&name).map_err(BackupError::file(&name))?;
    let damaged = |file: &Path, what: String| BackupError::Damaged { file: file.to_owned(), what };
    let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(&name, error.to_string()))?;
    if head.format != FORMAT {
        return Err(BackupError::Unknown { file: name, format: head.format });
    }
    let list = directory.join(VERSIONS);
    if hash_of(&list).map_err(BackupError::file(&list))? != head.versions_hash {
        return Err(damaged(&list, "it does not have the hash that backup.json says".into()));
    }
    let text = fs::read_to_string(&list).map_err(BackupError::file(&list))?;
    let versions = text.lines().map(serde_json::from_str::<Version>).collect::<Result<Vec<_>, _>>();
    let versions = versions.map_err(|error| damaged(&list, error.to_string()))?;
    let mut compared = BTreeSet::new();
    for entry in versions.iter().map(|version| &version.entry).filter(|entry| entry.size > 0) {
        let place = place_of(&directory.join(CONTENTS), &entry.hash);
        if compared.insert(entry.hash) && hash_of(&place).map_err(BackupError::file(&place))? != entry.hash {
            return Err(damaged(&place, "its content does not have the hash that names it".into()));
        }
    }
    Ok(Backup { head, directory: directory.to_owned(), manifests: manifests(versions) })
}

/// Entries of one UID were published together.
fn manifests(versions: Vec<Version>) -> Vec<Arc<Manifest>> {
    let mut manifests: Vec<Manifest> = Vec::new();
    for Version { entry, publisher, .. } in versions {
        let uid = entry.uid;
        let entry = Entry {
            path: entry.path,
            hash: entry.hash,
            size: entry.size,
            content_type: entry.content_type,
            flags: entry.flags,
        };
        match manifests.last_mut().filter(|last| last.uid == uid) {
            Some(last) => last.entries.push(entry),
            None => {
                manifests.push(Manifest { uid, publisher, key: None, entries: vec![entry], unknown: Vec::new() });
            }
        }
    }
    manifests.sort_by_key(|manifest| manifest.uid);
    manifests.into_iter().map(Arc::new).collect()
}

impl Backup {
    /// The number of the stores that are filled from it.
    pub fn store_number(&self) -> u32 {
        self.head.store_number_max.saturating_add(STORE_NUMBERS_LEFT)
    }

    /// Makes the store `identity` in `storage` and fills it: all publications agreed, under their UIDs, and a clock that
    /// goes on above them.
    pub fn fill(&self, storage: DirStorage, identity: &StoreIdentity) -> Result<(), BackupError> {
        Store::create(storage.clone(), identity)?;
        let mut opened = Store::open(storage)?;
        let greatest = self.manifests.last().map_or(Uid::ZERO, |manifest| manifest.uid);
        let mut records = vec![Durable::Ceiling { micros: Micros(greatest.micros + 1) }];
        let (mut stored, mut len) = (BTreeSet::new(), 0);
        for manifest in &self.manifests {
            let mut contents = Vec::new();
            for entry in manifest.entries.iter().filter(|entry| entry.size > 0 && stored.insert(entry.hash)) {
                match entry.size > INLINE_LEN_MAX {
                    true => self.store_large(&opened, &entry.hash)?,
                    false => contents.push(self.read_small(&entry.hash)?),
                }
            }
            len += contents.iter().map(|content| content.bytes.len()).sum::<usize>();
            records.push(Durable::Held { manifest: Arc::clone(manifest), contents, own_bit: true });
            records.push(Durable::Agreed { uid: manifest.uid });
            if records.len() >= COMMIT_RECORDS || len >= COMMIT_LEN {
                opened.log.commit(&records)?;
                records.clear();
                len = 0;
            }
        }
        records.push(Durable::Joined);
        opened.log.commit(&records)?;
        opened.log.close()?;
        Ok(opened.maintenance.checkpoint(clock::monotonic())?)
    }

    fn place(&self, hash: &Hash) -> PathBuf {
        place_of(&self.directory.join(CONTENTS), hash)
    }

    fn read_small(&self, hash: &Hash) -> Result<InlineContent, BackupError> {
        let place = self.place(hash);
        let bytes = Bytes::from(fs::read(&place).map_err(BackupError::file(&place))?);
        match Hash::of(&bytes) == *hash {
            true => Ok(InlineContent { hash: *hash, bytes }),
            false => Err(BackupError::Damaged { file: place, what: "it changed while it was restored".into() }),
        }
    }

    fn store_large(&self, opened: &Opened<DirStorage>, hash: &Hash) -> Result<(), BackupError> {
        let place = self.place(hash);
        let mut file = File::open(&place).map_err(BackupError::file(&place))?;
        let (mut staging, mut buffer) = (opened.contents.stage(), vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer).map_err(BackupError::file(&place))? {
                0 => break,
                len => staging.write(&buffer[..len])?,
            }
        }
        staging.finish(Some(*hash))?;
        Ok(())
    }
}
