//! Data-driven tests of the agreement protocol: `tests/datadriven/cluster*.txt`.
//!
//! Commands:
//!
//!     cluster n=5 [mode=two-phase] [order=fast] [quorum=Q]   a fresh cluster, all connected
//!     clock sp=2 offset=30m               the wall clock of an SP is off by so much
//!     submit NAME sp=1 path=P [content=C | size=N | delete] [key=K] [known=40m]
//!                                         known: the publisher knows a UID so far ahead of the true time
//!     run [for=5s]                        everything that can happen (in that time) happens
//!     flush sp=1 [all]                    the oldest write becomes durable (all there are, perhaps none)
//!     full sp=1   room sp=1               the disk has no room for any write; it has room again
//!     damage sp=1 path=P                  the content of a path turns out to be damaged there
//!     deliver from=1 to=2                 the oldest frame arrives
//!     lose from=1 to=2                    the oldest frame is lost
//!     fire sp=1                           time passes until its next timer, which fires
//!     crash sp=1   start sp=1             the process and its unsynced writes are gone; from its disk again
//!     replace sp=1                        the disk of an SP that is down is lost; it gets a new, empty store
//!     cut a=1 b=2   heal a=1 b=2          no link between two SPs
//!     read path=P                         what each SP serves
//!     roots                               which SPs have equal index roots
//!     pending                             publications pending, of each SP
//!     staging                             contents of which a part is staged, of each SP
//!     chunks                              how many chunks of contents were asked for since the last such command
//!     as-of                               how long before now nothing is missing, of each SP ("never": not known)

mod support;

use acms_engine::protocol::{Mode, Order, SpId};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};
use support::{
    cluster::{Cluster, Options, Setup, short},
    datadriven,
};

struct Command<'a> {
    name: &'a str,
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Command<'a> {
    fn parse(line: &'a str) -> Command<'a> {
        let mut parts = line.split_whitespace();
        let name = parts.next().expect("a command");
        let (options, words): (Vec<_>, Vec<_>) = parts.partition(|part| part.contains('='));
        let options = options.into_iter().map(|part| part.split_once('=').expect("checked")).collect();
        Command { name, words, options }
    }

    fn sp(&self, name: &str) -> SpId {
        SpId(self.options[name].parse().expect("the number of an SP"))
    }
}

fn duration(text: &str) -> Duration {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
    let number: u64 = text[..split].parse().expect("a number");
    match &text[split..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        "h" => Duration::from_secs(3_600 * number),
        unit => panic!("unknown unit {unit}"),
    }
}

fn execute(cluster: &mut Cluster, command: &Command<'_>, out: &mut String) {
    let options = &command.options;
    match command.name {
        "cluster" => {
            let setup = Setup {
                mode: if options.get("mode") == Some(&"two-phase") { Mode::TwoPhase } else { Mode::Fused },
                order: if options.get("order") == Some(&"fast") { Order::Fast } else { Order::Strict },
                quorum: options.get("quorum").map(|text| text.parse().expect("a quorum system")).unwrap_or_default(),
            };
            *cluster = Cluster::new(options["n"].parse().expect("a number"), setup);
        }
        "clock" => {
            let text = options["offset"];
            let offset = duration(text.trim_start_matches('-')).as_micros() as i64;
            cluster.set_clock(command.sp("sp"), if text.starts_with('-') { -offset } else { offset });
        }
        "submit" => {
            let content = match (options.get("content"), options.get("size")) {
                (Some(text), _) => Some(text.as_bytes().to_vec()),
                (None, Some(size)) => Some((0..size.parse::<usize>().expect("a size")).map(|i| i as u8).collect()),
                (None, None) if command.words.contains(&"delete") => None,
                (None, None) => Some(Vec::new()),
            };
            let known = options.get("known").map(|ahead| cluster.uid_ahead(duration(ahead)));
            let extra = Options { key: options.get("key").map(ToString::to_string), known };
            cluster.submit(command.words[0], command.sp("sp"), options["path"], content.as_deref(), extra);
        }
        "run" => match options.get("for") {
            Some(text) => cluster.run_for(duration(text)),
            None => cluster.run(),
        },
        "flush" if command.words.contains(&"all") => while cluster.flush(command.sp("sp")) {},
        "flush" => assert!(cluster.flush(command.sp("sp")), "nothing to flush"),
        "fire" => assert!(cluster.fire(command.sp("sp")), "no timer"),
        "full" => assert!(cluster.full.insert(command.sp("sp")), "it is full"),
        "room" => assert!(cluster.full.remove(&command.sp("sp")), "it is not full"),
        "damage" => cluster.damage(command.sp("sp"), options["path"]),
        "chunks" => {
            let count = std::mem::take(&mut cluster.chunks_asked);
            cluster.news.push(format!("{count} chunks asked for"));
        }
        "deliver" => assert!(cluster.deliver(command.sp("from"), command.sp("to")), "no frame"),
        "lose" => assert!(cluster.drop_frame(command.sp("from"), command.sp("to")), "no frame"),
        "crash" => cluster.crash(command.sp("sp")),
        "start" => cluster.start(command.sp("sp")),
        "replace" => cluster.replace(command.sp("sp")),
        "cut" => cluster.cut(command.sp("a"), command.sp("b")),
        "heal" => cluster.heal(command.sp("a"), command.sp("b")),
        _ => return show(cluster, command, out),
    }
    for line in std::mem::take(&mut cluster.news) {
        writeln!(out, "{line}").expect("a string takes all");
    }
}

fn show(cluster: &Cluster, command: &Command<'_>, out: &mut String) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for sp in cluster.sps().filter(|sp| cluster.is_up(*sp)) {
        let text = match command.name {
            "read" => match cluster.read(sp, command.options["path"]) {
                None => "nothing".to_owned(),
                Some((uid, None)) => format!("{} deleted", short(uid)),
                Some((uid, Some(content))) if content.len() > 40 => format!("{} {} bytes", short(uid), content.len()),
                Some((uid, Some(content))) => format!("{} {:?}", short(uid), String::from_utf8_lossy(&content)),
            },
            "roots" => cluster.sp(sp).snapshot(acms_engine::protocol::Micros(0)).root.to_string()[..8].to_owned(),
            "as-of" => match cluster.as_of_age(sp) {
                None => "never".to_owned(),
                Some(age) => format!("{} ms ago", age.as_millis()),
            },
            "staging" => cluster.staging(sp).to_string(),
            "pending" => cluster.sp(sp).status().pending.to_string(),
            other => panic!("unknown command {other}"),
        };
        groups.entry(text).or_default().push(format!("sp{sp}"));
    }
    for (text, sps) in groups {
        writeln!(out, "{}: {text}", sps.join(" ")).expect("a string takes all");
    }
}

#[test]
fn scripts() {
    datadriven::run_all("cluster", || {
        let mut cluster = Cluster::new(3, Setup::default());
        move |line: &str, out: &mut String| execute(&mut cluster, &Command::parse(line), out)
    });
}
