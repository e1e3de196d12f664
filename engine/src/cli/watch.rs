//! `acms watch`: one line for each change under a prefix.
//!
//! Invariant: after what was there at the start, the newest publication of each path is told once, whatever happens to
//! connections and storage points in between. A path that changes again before anybody could be told of the first change
//! is told of with the second one only: so the changes feed has it.

use super::{
    Exit, Source,
    output::{self, Output},
};
use crate::{
    client::{Client, ClientError, ClientOptions},
    protocol::{
        Path, Prefix, Uid,
        api::{Cursor, ListedEntry},
    },
};
use serde::Serialize;
use std::{collections::BTreeMap, convert::Infallible, io::Write, thread, time::Duration};

/// A held request is answered within 25 s.
const IO_TIMEOUT: Duration = Duration::from_secs(40);
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Arguments of `acms watch`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Columns, separated by tabs: time of the publication, UID, bytes, flags, path.\n\
    Goes on for ever, through lost connections and restarts; at another of the storage points given if one is gone.")]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// First tell what is there already
    #[arg(long, short)]
    all: bool,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// A path, or all below it, such as edge; everything if absent
    #[arg(default_value = "", hide_default_value = true)]
    prefix: Prefix,
}

/// The newest publication of each path that was told, or was there before anything had to be told.
#[derive(Debug, Default)]
struct Seen {
    newest: BTreeMap<Path, (Uid, Told)>,
    /// A whole listing was compared, so that nothing from before it has still to be told.
    compared: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Yes,
    /// It was in the first listing. The feed begins before that: if it has it too, it has changed since the start.
    Perhaps,
}

impl Seen {
    fn note(&mut self, entry: &ListedEntry, told: Told) {
        self.newest.insert(entry.path.clone(), (entry.uid, told));
    }

    /// Whether an entry of the feed is news; it is told then.
    fn is_news_of_feed(&mut self, entry: &ListedEntry) -> bool {
        let is_news = self.newest.get(&entry.path).is_none_or(|(known, told)| {
            entry.uid > *known || (entry.uid == *known && *told == Told::Perhaps && !self.compared)
        });
        if is_news {
            self.note(entry, Told::Yes);
        }
        is_news
    }

    /// Whether an entry of a later listing is news; it is told then.
    fn is_news_of_listing(&mut self, entry: &ListedEntry) -> bool {
        let is_news = self.newest.get(&entry.path).is_none_or(|(known, _)| entry.uid > *known);
        if is_news {
            self.note(entry, Told::Yes);
        }
        is_news
    }
}

/// Why following ends.
enum End {
    /// As many changes as were asked for, or nobody reads any more.
    Enough,
    Failed(ClientError),
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> End {
        End::Failed(error)
    }
}

struct Watch<'a> {
    client: Client,
    args: &'a Args,
    output: Output,
    seen: Seen,
    told: u64,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let options = ClientOptions { io_timeout: IO_TIMEOUT, ..ClientOptions::default() };
    let client = match args.from.client(options) {
        Ok(client) => client,
        Err(error) => return output.client_error(&error),
    };
    let mut watch = Watch { client, args, output, seen: Seen::default(), told: 0 };
    let Err(end) = watch.go();
    match end {
        End::Enough => Exit::Done,
        End::Failed(error) => output.client_error(&error),
    }
}

impl Watch<'_> {
    fn go(&mut self) -> Result<Infallible, End> {
        let mut cursor = self.begin()?;
        let mut back_off = BACK_OFF_MIN;
        loop {
            match self.advance(cursor) {
                Ok(next) => {
                    if next == cursor {
                        // No storage point answers so; something between must not be asked without end.
                        thread::sleep(BACK_OFF_MIN);
                    }
                    (cursor, back_off) = (next, BACK_OFF_MIN);
                }
                Err(End::Failed(error)) if !matches!(error, ClientError::Refused { status: 400..500, .. }) => {
                    if back_off == BACK_OFF_MIN {
                        self.output.remark(&format!("{error}; trying again until it works"), None);
                    }
                    thread::sleep(back_off);
                    back_off = (back_off * 2).min(BACK_OFF_MAX);
                }
                Err(end) => return Err(end),
            }
        }
    }

    /// Where to follow from, after all that is there was noted.
    fn begin(&mut self) -> Result<Cursor, End> {
        let cursor = self.client.snapshot()?.cursor();
        let mut there = Vec::new();
        let (seen, all) = (&mut self.seen, self.args.all);
        self.client.each_entry(&self.args.prefix, |indexed| {
            seen.note(&indexed.entry, if all { Told::Yes } else { Told::Perhaps });
            if all && !indexed.entry.flags.deleted {
                there.push(indexed.entry);
            }
        })?;
        there.iter().try_for_each(|entry| self.tell(entry))?;
        Ok(cursor)
    }

    /// Waits for the next answer of the feed, and tells what it brings.
    fn advance(&mut self, cursor: Cursor) -> Result<Cursor, End> {
        let changes = self.client.changes(cursor, &self.args.prefix)?;
        if changes.full {
            self.compare(cursor, changes.next)?;
        }
        for entry in changes.entries.iter().filter(|entry| self.args.prefix.covers(entry.path.as_str())) {
            if self.seen.is_news_of_feed(entry) {
                self.tell(entry)?;
            }
        }
        Ok(changes.next)
    }

    /// The feed does not reach back to `from`: finds what has changed since by listing all.
    fn compare(&mut self, from: Cursor, to: Cursor) -> Result<(), End> {
        let what = format!("no feed leads from {from} to {to}: listing everything to find what has changed");
        self.output.remark(&what, None);
        let (mut news, seen) = (Vec::new(), &mut self.seen);
        let listed = self.client.each_entry(&self.args.prefix, |indexed| {
            if seen.is_news_of_listing(&indexed.entry) {
                news.push(indexed.entry);
            }
        });
        // What was found must be told, also by a listing that was cut off.
        self.seen.compared |= listed.is_ok();
        news.sort_by_key(|entry| entry.uid);
        news.iter().try_for_each(|entry| self.tell(entry))?;
        Ok(listed?)
    }

    fn tell(&mut self, entry: &ListedEntry) -> Result<(), End> {
        let time = output::time(entry.uid.micros);
        let line = if self.output.json {
            #[derive(Serialize)]
            struct Line<'a> {
                time: String,
                #[serde(flatten)]
                entry: &'a ListedEntry,
            }
            let entry = &ListedEntry { inline: None, ..entry.clone() };
            serde_json::to_string(&Line { time, entry }).expect("an entry has text keys and no failing parts")
        } else {
            format!("{time}\t{}\t{}\t{}\t{}", entry.uid, entry.size, output::flags(entry.flags, false), entry.path)
        };
        let mut stdout = std::io::stdout().lock();
        // Nobody reads any more: the end.
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|_| End::Enough)?;
        self.told += 1;
        if self.args.count.is_some_and(|count| self.told >= count) { Err(End::Enough) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Flags, Hash, SpId};

    fn entry(path: &str, micros: u64) -> ListedEntry {
        let uid = Uid { micros, sp: SpId(1), store: 0 };
        let (hash, flags) = (Hash::of(b""), Flags::default());
        ListedEntry {
            path: path.parse().unwrap(),
            uid,
            hash,
            size: 0,
            content_type: String::new(),
            flags,
            inline: None,
        }
    }

    #[test]
    fn each_change_is_told_once_through_feeds_and_listings() {
        let mut seen = Seen::default();
        seen.note(&entry("a", 5), Told::Perhaps);
        seen.note(&entry("d", 5), Told::Perhaps);
        assert!(seen.is_news_of_feed(&entry("a", 5)), "the listing had it already, but it has changed after the start");
        assert!(!seen.is_news_of_feed(&entry("a", 5)));
        assert!(seen.is_news_of_feed(&entry("b", 6)));
        assert!(!seen.is_news_of_listing(&entry("a", 5)) && !seen.is_news_of_listing(&entry("a", 4)));
        assert!(seen.is_news_of_listing(&entry("c", 7)));
        assert!(!seen.is_news_of_feed(&entry("c", 7)), "a feed repeats what the listing had");
        seen.compared = true;
        assert!(!seen.is_news_of_feed(&entry("d", 5)), "it was there at the start");
        assert!(!seen.is_news_of_feed(&entry("b", 5)), "another storage point lags behind");
        assert!(seen.is_news_of_feed(&entry("b", 8)));
    }
}
