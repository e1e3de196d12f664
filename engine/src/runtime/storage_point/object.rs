//! What the name of an object stands for here. HTTP answers by it, in the process and in the simulation.

use crate::{
    protocol::{
        Hash, Now, StoragePoint,
        durable::INLINE_LEN_MAX,
        io::{Environment, drain},
    },
    store::{Contents, Storage, StoreError},
};
use bytes::Bytes;

/// An index node or a content.
#[derive(Debug)]
pub enum Object {
    /// These bytes.
    Bytes(Bytes),
    /// A content above 64 KiB of so many bytes, which has its hash: to be sent as it lies on the disk.
    Large(u64),
    /// The same, but it has to be compared with its hash first: see [`Contents::needs_comparing`].
    Uncompared(u64),
    /// It is not here.
    Missing,
    /// It is not here as it was, and should have so many bytes: the storage point has to hear of it.
    Damaged(u64),
    /// The disk does not give it.
    Unreadable(StoreError),
}

impl Object {
    /// Finds an index node or a content by its hash.
    pub fn find<S: Storage>(sp: &StoragePoint, contents: &Contents<S>, hash: &Hash) -> Object {
        sp.node(hash).map_or_else(|| Object::content(sp, contents, hash), Object::Bytes)
    }

    /// Whether an index node or a content of this hash is here, without a look at its bytes.
    pub fn is_here<S: Storage>(sp: &StoragePoint, contents: &Contents<S>, hash: &Hash) -> bool {
        contents.len(hash).is_some() || sp.node(hash).is_some()
    }

    /// Finds a content by its hash.
    pub fn content<S: Storage>(sp: &StoragePoint, contents: &Contents<S>, hash: &Hash) -> Object {
        match contents.len(hash) {
            None if *hash == Hash::of(b"") => Object::Bytes(Bytes::new()),
            None => sp.size_if_held(hash).map_or(Object::Missing, Object::Damaged),
            Some(len) if contents.needs_comparing(hash) => Object::Uncompared(len),
            Some(len) => match contents.reader(hash) {
                Ok(_) if len > INLINE_LEN_MAX => Object::Large(len),
                reader => match reader.and_then(|reader| reader.read(0, len)) {
                    Ok(bytes) => Object::Bytes(bytes),
                    Err(StoreError::CorruptContent(_)) => Object::Damaged(len),
                    Err(StoreError::Missing(_)) => Object::Missing,
                    Err(error) => Object::Unreadable(error),
                },
            },
        }
    }
}

/// An environment that may find contents damaged while it does what it is asked for.
pub trait FindsDamage: Environment {
    /// Those found since the last call, with the bytes that they should have. Where those are not known the content is not
    /// here at all, which is damage only if a publication held here needs it.
    fn take_damaged(&mut self) -> Vec<(Hash, Option<u64>)>;
}

/// Carries out everything that `sp` asks for, and lets it know of what is found damaged on the way.
pub fn carry_out<E: FindsDamage>(sp: &mut StoragePoint, environment: &mut E, now: Now) {
    drain(sp, environment);
    loop {
        let damaged = environment.take_damaged();
        if damaged.is_empty() {
            return;
        }
        for (hash, size) in damaged {
            if let Some(size) = size.or_else(|| sp.size_if_held(&hash)) {
                sp.handle_damaged(now, hash, size);
            }
        }
        drain(sp, environment);
    }
}
