//! An index with as many paths as wanted.

use acms_engine::protocol::{Duration, Flags, Hash, IndexEntry, Instant, Path, SpId, Uid, index::Index};

/// Path `number` of `count`: half of them in one large directory, half in directories of a hundred.
pub fn path(number: u64, count: u64) -> Path {
    let text = match number % 2 {
        0 => format!("edge/routes/{:012}.json", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16),
        _ => format!("hosts/{:06}/config-{:03}.json", number / 2 % (count / 200 + 1), number / 2 / (count / 200 + 1)),
    };
    text.parse().expect("a path")
}

/// An entry with a UID that grows with `number`.
pub fn entry(number: u64) -> IndexEntry {
    IndexEntry {
        uid: Uid { micros: 1_700_000_000_000_000 + number, sp: SpId(1), store: 0 },
        hash: Hash::of(&number.to_le_bytes()),
        size: 1 + number % 65_536,
        content_type: "application/json".to_owned(),
        flags: Flags::default(),
    }
}

/// An index of `count` paths, with its root.
pub fn filled(count: u64) -> Index {
    let mut index = Index::new(Duration::from_secs(300));
    for number in 0..count {
        index.insert(&path(number, count), entry(number));
    }
    index.mint_root(Instant(0));
    index
}
