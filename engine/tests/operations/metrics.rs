//! `/metrics`: what Prometheus's own linter asks of names and texts, and the table in `engine/docs/METRICS.md`.

use crate::cluster::{Cluster, PATIENCE};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// One metric: what is said of it, and what it has.
#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    samples: BTreeSet<String>,
}

fn scrape(cluster: &Cluster) -> String {
    let addr = cluster.url(1).replace("http://", "");
    let mut stream = TcpStream::connect(&addr).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// Families by name; whatever is no exposition fails.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "the type stands behind the help");
            kind.clone_into(&mut families.get_mut(name).unwrap().kind);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) =
                sample.split_once('{').map_or((sample, ""), |(name, rest)| (name, &rest[..rest.len() - 1]));
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line} under {current}");
            assert!(family.samples.insert(sample.to_owned()), "{sample} twice");
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            family.labels.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// The rules of `promtool check metrics`.
fn lint(name: &str, family: &Family) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |holds: bool, text: &str| {
        if !holds {
            wrong.push(format!("{name}: {text}"))
        }
    };
    rule(family.help.ends_with('.') && family.help.len() > 5, "help is a sentence");
    rule(["counter", "gauge", "histogram"].contains(&family.kind.as_str()), "has a type");
    rule(name.ends_with("_total") == (family.kind == "counter"), "counters and nothing else end in _total");
    rule(name.starts_with("acms_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "is snake_case");
    let words: Vec<&str> = name.split('_').collect();
    let bad = ["counter", "gauge", "histogram", "summary", "info"];
    rule(name == "acms_build_info" || !bad.iter().any(|word| words.contains(word)), "has no type in its name");
    let small = ["ms", "us", "s", "kib", "mib", "milliseconds", "microseconds", "minutes", "hours", "kilobytes"];
    rule(!small.iter().any(|word| words.contains(word)), "has base units, written out");
    rule(
        !["bucket", "count", "sum"].iter().any(|word| name.ends_with(&format!("_{word}"))),
        "ends in no reserved word",
    );
    let units = words.iter().position(|word| ["seconds", "bytes"].contains(word));
    let last = words.len() - if name.ends_with("_total") { 2 } else { 1 };
    rule(units.is_none_or(|at| at == last), "has its unit at the end");
    wrong
}

fn table(families: &BTreeMap<String, Family>) -> String {
    let mut text = "# Metrics\n\nWhat a storage point says at `/metrics`, in the order of names. A test keeps this table equal \
         to what is said:\n`UPDATE_EXPECT=1 cargo test -p acms-engine --test operations metrics` rewrites it. Counters and \
         histograms begin at 0 with\nthe process. A cache has `acms_tls_refused_total` too.\n\n| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for (name, Family { help, kind, labels, .. }) in families {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    text
}

#[test]
fn metrics_follow_the_rules_and_are_documented() {
    let cluster = Cluster::start(7, 3);
    cluster.publish(1, "a", "x");
    // What has no sample shows no label: a stranger is refused, and a first round of as-of tells round trips.
    let peer = cluster.url(1).replace("http://", "").replace(":7400", ":7500");
    TcpStream::connect(peer).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let started = Instant::now();
    let text = loop {
        let text = scrape(&cluster);
        if text.contains("acms_peer_round_trip_seconds{") && text.contains("acms_peer_refused_total{") {
            break text;
        }
        assert!(started.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    let families = parse(&text);
    let wrong: Vec<String> = families.iter().flat_map(|(name, family)| lint(name, family)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in ["acms_acceptance_seconds", "acms_commit_seconds", "acms_store_flush_seconds"] {
        let count = text.lines().find_map(|line| line.strip_prefix(&format!("{name}_count ")));
        assert!(count.is_some_and(|count| count != "0"), "{name}: {count:?}");
    }
    promtool(&text);

    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let expected = table(&families);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&place, &expected).unwrap();
    }
    let written = fs::read_to_string(&place).unwrap_or_default();
    assert_eq!(written, expected, "rewrite docs/METRICS.md with UPDATE_EXPECT=1");
}

/// Prometheus's own opinion, where it is installed.
fn promtool(text: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else { return eprintln!("promtool is not installed: not asked") };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
