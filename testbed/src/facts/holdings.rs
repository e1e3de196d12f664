//! Who holds what, and since when: the one table that delivery, order, freshness and convergence read.

use super::VersionId;

/// What a process holds of a path. 16 bytes: there is one for every pair of a receiver and a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    /// When `verified` came.
    pub(crate) verified_ns: u64,
    /// The greatest that a receiver had verified in memory.
    pub(crate) verified: Option<VersionId>,
    /// The greatest that a receiver has applied, or that a storage point knows agreed.
    pub(crate) kept: Option<VersionId>,
}

/// A value for each path, in pages of 64, so that many paths of which a process has few take little room.
#[derive(Clone, Debug)]
pub(crate) struct Pages<T>(Vec<Option<Box<[T; 64]>>>);

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages(Vec::new())
    }
}

impl<T: Copy + Default> Pages<T> {
    pub(crate) fn at(&self, i: u32) -> T {
        let page = self.0.get(i as usize / 64).and_then(Option::as_ref);
        page.map_or(T::default(), |page| page[i as usize % 64])
    }

    pub(crate) fn at_mut(&mut self, i: u32) -> &mut T {
        let page = i as usize / 64;
        if self.0.len() <= page {
            self.0.resize_with(page + 1, || None);
        }
        let page = self.0[page].get_or_insert_with(|| Box::new([T::default(); 64]));
        &mut page[i as usize % 64]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_what_was_put_there() {
        assert_eq!(size_of::<Held>(), 16);
        let mut pages = Pages::<u32>::default();
        *pages.at_mut(200) = 7;
        assert_eq!((pages.at(200), pages.at(199), pages.at(3), pages.at(100_000)), (7, 0, 0, 0));
    }
}
