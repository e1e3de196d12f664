//! Making a backup of a cluster that runs, by what it serves to everybody.

use super::{BackupError, CONTENTS, FORMAT, HEAD, Head, VERSIONS, hash_of, place_of};
use crate::{
    client::{Client, ClientError},
    protocol::{
        Hash, Node, NodePlace,
        api::{ListedEntry, Snapshot, Version},
    },
    runtime::http::target::ANONYMOUS,
};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// So often is begun anew with the snapshot of then, because what an earlier one needs is gone.
const ATTEMPTS_MAX: usize = 5;
/// A snapshot that has everything accepted before the backup began is waited for so long ...
const FRESH_TIME: Duration = Duration::from_secs(10);
/// ... and looked for so often.
const FRESH_EVERY: Duration = Duration::from_millis(100);

/// Backs up what `client`'s storage points serve into the new directory `to`, which misses nothing that was accepted before
/// it began unless the log says so; with `history` the kept versions of each path, too. What an earlier attempt has fetched
/// (in `to` with `.partial` behind its name) is not fetched again.
pub fn take(client: &Client, to: &Path, history: bool) -> Result<Head, BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    fs::create_dir_all(partial.join(CONTENTS)).map_err(BackupError::file(&partial))?;
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = fresh_snapshot(client)?;
        if let Some(head) = of_snapshot(client, &partial, snapshot, history)? {
            finish(&partial, to, &head)?;
            return Ok(head);
        }
    }
    Err(BackupError::Moving)
}

/// A snapshot whose as-of has reached the time of asking: its root may lag behind what was accepted just before.
fn fresh_snapshot(client: &Client) -> Result<Snapshot, ClientError> {
    let mut snapshot = client.snapshot()?;
    let began_us = snapshot.issued_at_us;
    for _ in 0..FRESH_TIME.as_millis() / FRESH_EVERY.as_millis() {
        if snapshot.as_of_us >= began_us {
            return Ok(snapshot);
        }
        thread::sleep(FRESH_EVERY);
        snapshot = client.snapshot()?;
    }
    let late_s = began_us.saturating_sub(snapshot.as_of_us) / 1_000_000;
    tracing::warn!(
        "as-of stands still at storage point {}: what was accepted in the last {late_s} s may be missing; see to a \
         quorum, and back up again",
        snapshot.sp
    );
    Ok(snapshot)
}

/// `None`: something that the snapshot needs is gone.
fn of_snapshot(
    client: &Client,
    partial: &Path,
    snapshot: Snapshot,
    history: bool,
) -> Result<Option<Head>, BackupError> {
    let Some(entries) = walk(client, snapshot.root)? else { return Ok(None) };
    let mut versions = Vec::with_capacity(entries.len());
    for entry in entries {
        versions.extend(versions_of(client, entry, history)?);
    }
    versions.sort_unstable_by(|a, b| (a.entry.uid, &a.entry.path).cmp(&(b.entry.uid, &b.entry.path)));
    let contents: BTreeMap<Hash, u64> =
        versions.iter().map(|version| (version.entry.hash, version.entry.size)).filter(|(_, size)| *size > 0).collect();
    for hash in contents.keys() {
        if !fetch(client, &partial.join(CONTENTS), hash)? {
            return Ok(None);
        }
    }
    let list = partial.join(VERSIONS);
    write_list(&list, &versions).map_err(BackupError::file(&list))?;
    Ok(Some(Head {
        format: FORMAT,
        store_number_max: store_number_max(&client.status()?),
        snapshot,
        versions: versions.len() as u64,
        versions_hash: hash_of(&list).map_err(BackupError::file(&list))?,
        contents: contents.len() as u64,
        contents_bytes: contents.values().sum(),
    }))
}

/// All entries under a root; `None`: a node of it is gone.
fn walk(client: &Client, root: Hash) -> Result<Option<Vec<ListedEntry>>, BackupError> {
    let (mut queue, mut entries) = (vec![(NodePlace::root(), root)], Vec::new());
    while let Some((place, hash)) = queue.pop() {
        let Some(bytes) = client.object(&hash)? else { return Ok(None) };
        let node = Node::decode(&bytes).and_then(|node| place.check(&node).map(|()| node)).map_err(|error| {
            let url = client.urls().first().map(ToString::to_string).unwrap_or_default();
            ClientError::NotAcms { url, detail: format!("node {hash} cannot stand where it does: {error}") }
        })?;
        queue.extend(place.children(&node));
        let Node::Page(items) = node else { continue };
        entries.extend(items.iter().filter_map(|item| {
            let path = place.path(&item.segment).parse().ok()?;
            Some(ListedEntry::new(path, item.file.as_ref()?))
        }));
    }
    Ok(Some(entries))
}

/// The version that an entry is, and with `history` those before it that are kept.
fn versions_of(client: &Client, entry: ListedEntry, history: bool) -> Result<Vec<Version>, BackupError> {
    let known = match history {
        true => client.history(&entry.path)?,
        false => None,
    };
    let mut versions = known.map_or_else(Vec::new, |known| known.versions);
    versions.retain(|version| version.entry.uid <= entry.uid);
    // The history of a path that is published all the time has let go the version that the root names. Its content is
    // kept for the root's sake; who published it is not told any more.
    if versions.first().is_none_or(|newest| newest.entry.uid != entry.uid) {
        let (publisher, accepted_us) = (ANONYMOUS.into(), entry.uid.micros);
        versions.insert(0, Version { entry, publisher, accepted_us });
    }
    Ok(versions)
}

/// Has the content here, whole; false: it is gone there.
fn fetch(client: &Client, contents: &Path, hash: &Hash) -> Result<bool, BackupError> {
    let place = place_of(contents, hash);
    let failed = || BackupError::file(&place);
    if place.exists() && hash_of(&place).map_err(failed())? == *hash {
        return Ok(true);
    }
    let coming = place.with_extension("coming");
    let make = || {
        fs::create_dir_all(place.parent().unwrap_or(contents))?;
        OpenOptions::new().write(true).create(true).truncate(true).open(&coming)
    };
    let found = client.object_to(hash, &make().map_err(failed())?)?;
    if found {
        fs::rename(&coming, &place).map_err(failed())?;
    }
    Ok(found)
}

fn write_list(list: &Path, versions: &[Version]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(list)?);
    for version in versions {
        serde_json::to_writer(&mut file, version)?;
        file.write_all(b"\n")?;
    }
    file.into_inner()?.sync_all()
}

fn store_number_max(status: &serde_json::Value) -> u32 {
    let numbers = status["stores"].as_object().into_iter().flat_map(|stores| stores.values());
    numbers.filter_map(|number| number.as_u64()?.try_into().ok()).max().unwrap_or(0)
}

/// Makes all of it durable, then gives it its name. What a snapshot needed that was given up goes.
fn finish(partial: &Path, to: &Path, head: &Head) -> Result<(), BackupError> {
    let failed = || BackupError::file(to);
    remove_unnamed(partial).map_err(failed())?;
    let write = || {
        let mut file = File::create(partial.join(HEAD))?;
        serde_json::to_writer_pretty(&mut file, head)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // All contents at once: one by one would take a flush each.
        nix::unistd::syncfs(&file)?;
        fs::rename(partial, to)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    };
    write().map_err(failed())
}

/// Removes the contents that `versions.jsonl` does not name.
fn remove_unnamed(partial: &Path) -> io::Result<()> {
    let list = fs::read_to_string(partial.join(VERSIONS))?;
    let versions = list.lines().map(serde_json::from_str::<Version>).collect::<Result<Vec<_>, _>>()?;
    let named: std::collections::BTreeSet<String> =
        versions.iter().map(|version| version.entry.hash.to_string()).collect();
    for directory in fs::read_dir(partial.join(CONTENTS))? {
        for file in fs::read_dir(directory?.path())? {
            let file = file?;
            if !file.file_name().to_str().is_some_and(|name| named.contains(name)) {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
