//! Texts that come again and again, as small numbers.

use crate::trace::Text;
use std::{collections::BTreeMap, ops::Bound};

/// Numbers texts in the order in which they first come.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: BTreeMap<Text, u32>,
    texts: Vec<Text>,
    /// By address: events share their texts, and most are looked up again soon. Holding the text keeps its address.
    recent: Vec<Option<(Text, u32)>>,
}

impl Names {
    const RECENT: usize = 1024;

    /// The number of `text`, and whether it is new.
    pub(crate) fn number(&mut self, text: &Text) -> (u32, bool) {
        let place = (text.as_ptr() as usize >> 4) % Names::RECENT;
        if let Some(Some((known, number))) = self.recent.get(place)
            && Text::ptr_eq(known, text)
        {
            return (*number, false);
        }
        let (number, is_new) = match self.numbers.get(text) {
            Some(number) => (*number, false),
            None => {
                let number = u32::try_from(self.texts.len()).expect("fewer than 2^32 names");
                self.numbers.insert(Text::clone(text), number);
                self.texts.push(Text::clone(text));
                (number, true)
            }
        };
        if self.recent.is_empty() {
            self.recent.resize(Names::RECENT, None);
        }
        self.recent[place] = Some((Text::clone(text), number));
        (number, is_new)
    }

    /// The number of a text that came before.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The text of a number.
    pub(crate) fn text(&self, number: u32) -> &Text {
        &self.texts[number as usize]
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.texts.len() as u32
    }

    /// Numbers of all texts that have `path` as a proper prefix by whole segments, or that are one of it.
    pub(crate) fn above_and_below<'a>(&'a self, path: &'a str) -> impl Iterator<Item = u32> + 'a {
        let above = path.match_indices('/').filter_map(|(at, _)| self.find(&path[..at]));
        let from = format!("{path}/");
        let below = self.numbers.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded));
        let below: Vec<u32> =
            below.take_while(|(text, _)| text.starts_with(&from)).map(|(_, number)| *number).collect();
        above.chain(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_number_whatever_its_address() {
        let mut names = Names::default();
        let numbers: Vec<_> =
            ["a", "a/b", "a/b/c", "ab", "a"].iter().map(|text| names.number(&Text::from(*text))).collect();
        assert_eq!(numbers, [(0, true), (1, true), (2, true), (3, true), (0, false)]);
        assert_eq!((names.find("ab"), names.find("b"), names.len(), &**names.text(1)), (Some(3), None, 4, "a/b"));
        assert_eq!(names.above_and_below("a/b").collect::<Vec<_>>(), [0, 2]);
        assert_eq!(names.above_and_below("a").collect::<Vec<_>>(), [1, 2]);
    }
}
