//! `report.html`: one file that needs nothing else.

use super::{
    RunResult,
    summary::{between, count, ms},
    svg,
};
use crate::metrics::{Intervals, Metrics, Quantiles};
use std::fmt::Write as _;

const STYLE: &str = "
  :root { color-scheme: light dark; --ink: #1d2733; --paper: #fff; --line: #dde3ea; --grid: #e6ebf0; --axis: #7b8794; --soft: #52606d;
    --good: #17703c; --bad: #b3261e; --void: #8a5a00; --dot: #1f6feb; --c0: #1f6feb; --c1: #c9820a; --c2: #b3261e; --c3: #1a7f37;
    --c4: #8250df; --c5: #8c959f }
  @media (prefers-color-scheme: dark) { :root { --ink: #d7dee6; --paper: #12181f; --line: #2a3541; --grid: #232d38; --axis: #6b7885;
    --soft: #9aa7b4; --good: #5fd08d; --bad: #ff8a80; --void: #e3b341; --dot: #6cb6ff; --c0: #6cb6ff; --c1: #e3b341; --c2: #ff8a80;
    --c3: #57d27f; --c4: #c297ff; --c5: #768390 } }
  body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
    background: var(--paper) }
  h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
  .wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
  th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
  td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } td small { color: var(--soft) }
  .held { color: var(--good) } .broken { color: var(--bad); font-weight: bold } .void { color: var(--void) }
  code, li { overflow-wrap: anywhere } pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; font-size: 13px }
  svg { display: block; width: 100%; height: auto; font: 14px system-ui, sans-serif; fill: var(--soft) }
  svg .small { font-size: 12px } polyline { fill: none; stroke-width: 2 } .grid { stroke: var(--grid) } .axis { stroke: var(--axis) }
  .fault { fill: var(--bad); opacity: .13 } .dot { fill: var(--dot); opacity: .55 }
  .c0 { stroke: var(--c0); --c: var(--c0) } .c1 { stroke: var(--c1); --c: var(--c1) } .c2 { stroke: var(--c2); --c: var(--c2) }
  .c3 { stroke: var(--c3); --c: var(--c3) } .c4 { stroke: var(--c4); --c: var(--c4) } .c5 { stroke: var(--c5); --c: var(--c5) }
  .legend span { margin-right: 1.2rem; white-space: nowrap } .legend i { display: inline-block; width: .8rem; height: .8rem;
    margin-right: .4rem; border-radius: 2px; background: var(--c) }
  @media (max-width: 600px) { body { margin: 1rem auto; padding: 0 .7rem } th, td { padding: .25rem .35rem } svg { font-size: 23px }
    svg .small { font-size: 18px } polyline { stroke-width: 3 } }
";

/// Text that is safe in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Page(String);

impl Page {
    fn row(&mut self, cells: &[&str]) {
        self.0.push_str("<tr>");
        for (i, cell) in cells.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = write!(self.0, "<td{}>{}</td>", if i > 0 { " class=\"n\"" } else { "" }, escape(cell));
        }
        self.0.push_str("</tr>");
    }

    fn head(&mut self, cells: &[&str]) {
        self.0.push_str("<div class=\"wide\"><table><tr>");
        for (i, cell) in cells.iter().enumerate() {
            let _ = write!(self.0, "<th{}>{cell}</th>", if i > 0 { " class=\"n\"" } else { "" });
        }
        self.0.push_str("</tr>");
    }

    fn end(&mut self) {
        self.0.push_str("</table></div>");
    }

    /// Percentiles, and below each between what it lies with 95 % confidence, if that is known.
    fn quantiles(&mut self, name: &str, quantiles: &Quantiles) {
        let Quantiles { p50, p90, p99, p999, max, samples, ci95 } = *quantiles;
        let Intervals { p50: in50, p90: in90, p99: in99, p999: in999 } = ci95.unwrap_or_default();
        let _ = write!(self.0, "<tr><td>{}</td>", escape(name));
        for (value, interval) in [(p50, in50), (p90, in90), (p99, in99), (p999, in999), (max, None)] {
            let interval = interval.map_or(String::new(), |_| format!("<br><small>{}</small>", between(interval)));
            let _ = write!(self.0, "<td class=\"n\">{}{interval}</td>", ms(value));
        }
        let _ = write!(self.0, "<td class=\"n\">{}</td></tr>", count(samples));
    }
}

/// The whole page.
///
/// `scenario` is its file, and `repeat` the command that runs it again.
pub fn page(result: &RunResult, metrics: &Metrics, scenario: &str, repeat: &str) -> String {
    let name = escape(&result.scenario);
    let mut page = Page(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>"
    ));
    let (class, verdict) = match result.passed() {
        _ if result.checks.iter().all(|check| check.held) && result.invalid().is_some() => ("void", "invalid"),
        false => ("broken", "failed"),
        true => ("held", "passed"),
    };
    let _ = write!(
        page.0,
        "<p><b class=\"{class}\">{verdict}</b> on {}, seed {}, {:.1} s, {} storage points, {} receivers, commit <code>{}</code></p>",
        escape(&result.backend),
        result.seed,
        result.wall_s,
        result.hosts.storage_points,
        result.hosts.receivers,
        escape(&result.commit)
    );
    if let Some(why) = result.invalid() {
        let _ = write!(page.0, "<p class=\"void\">{}</p>", escape(&why));
    }
    checks(&mut page, result);
    outcomes(&mut page, result);
    latency(&mut page, result, metrics);
    if !metrics.timeline.is_empty() {
        let chart = svg::timeline(&metrics.timeline, &result.faults);
        let _ = write!(page.0, "<h2>Updates and faults</h2>{chart}");
    }
    regions(&mut page, result);
    network(&mut page, result, metrics);
    faults_and_usage(&mut page, result);
    if !result.notes.is_empty() {
        page.0.push_str("<h2>Notes</h2><ul>");
        for note in &result.notes {
            let _ = write!(page.0, "<li>{}</li>", escape(note));
        }
        page.0.push_str("</ul>");
    }
    let _ = write!(
        page.0,
        "<h2>Scenario</h2><p>Run it again: <code>{}</code></p><pre>{}</pre><p>Trace <code>{}</code></p></body></html>",
        escape(repeat),
        escape(scenario),
        escape(&result.trace_hash)
    );
    page.0
}

/// From when a publication was due: percentiles and curves.
fn latency(page: &mut Page, result: &RunResult, metrics: &Metrics) {
    let of = |percent: &str| result.propagation.convergence_of.get(percent).copied().unwrap_or(0);
    page.0.push_str("<h2>Latency</h2>");
    page.head(&["from due to", "p50", "p90", "p99", "p99.9", "max", "samples"]);
    page.quantiles("accepted", &result.publish.latency_ms);
    page.quantiles("verified at a receiver", &result.propagation.per_receiver_ms);
    page.quantiles("durable at a receiver", &result.propagation.applied_ms);
    for percent in ["50", "90", "99", "99.9", "100"] {
        if let Some(quantiles) = result.propagation.convergence_ms.get(percent).filter(|it| it.samples > 0) {
            let missed = of(percent).saturating_sub(quantiles.samples);
            let missed = if missed > 0 { format!(" ({missed} never)") } else { String::new() };
            page.quantiles(&format!("verified at {percent} % of receivers{missed}"), quantiles);
        }
    }
    page.end();
    page.0.push_str("<p><small>Small: 95 % confidence intervals.</small></p>");
    let named = |names: &[(&'static str, &'static str)]| -> Vec<svg::Series<'_>> {
        let find =
            |file: &str| metrics.histograms.iter().find(|(name, _)| *name == file).map(|(_, histogram)| histogram);
        names.iter().filter_map(|(file, name)| Some((*name, find(file)?))).collect()
    };
    let spread = [
        ("50", "convergence-50", "50 % of receivers"),
        ("90", "convergence-90", "90 %"),
        ("99", "convergence-99", "99 %"),
        ("99.9", "convergence-99.9", "99.9 %"),
        ("100", "convergence-100", "all"),
    ];
    let part = |(percent, file, name): (&str, &'static str, &'static str)| {
        named(&[(file, name)]).pop().map(|series| (series, of(percent)))
    };
    let spread: Vec<svg::Part<'_>> = spread.into_iter().filter_map(part).collect();
    if !spread.is_empty() {
        let chart = svg::cumulative(&spread, "% of publications");
        let _ = write!(page.0, "<h2>Convergence: publications that had reached so many receivers</h2>{chart}");
    }
    let each = named(&[
        ("publish-latency", "accepted"),
        ("propagation", "verified at a receiver"),
        ("applied", "durable there"),
    ]);
    if !each.is_empty() {
        let _ = write!(page.0, "<h2>Percentiles</h2>{}", svg::percentiles(&each));
    }
}

/// How long publications took to each region.
fn regions(page: &mut Page, result: &RunResult) {
    let regions = &result.propagation.by_region;
    if regions.is_empty() {
        return;
    }
    page.0.push_str("<h2>Regions: from due to verified at a receiver there</h2>");
    page.head(&["region", "p50", "p90", "p99", "p99.9", "max", "samples"]);
    let mut regions: Vec<_> = regions.iter().collect();
    regions.sort_by(|(_, a), (_, b)| a.p50.unwrap_or(0.0).total_cmp(&b.p50.unwrap_or(0.0)));
    for (region, quantiles) in regions {
        page.quantiles(region, quantiles);
    }
    page.end();
}

fn checks(page: &mut Page, result: &RunResult) {
    page.0.push_str(
        "<h2>Promises</h2><div class=\"wide\"><table><tr><th></th><th></th><th class=\"n\">events</th><th></th></tr>",
    );
    for check in &result.checks {
        let (class, verdict) = match (check.held, &check.note) {
            (false, _) => ("broken", "broken"),
            (true, Some(_)) => ("void", if check.events > 0 { "held in part" } else { "not judged" }),
            (true, None) => ("held", "held"),
        };
        let _ = write!(
            page.0,
            "<tr><td><b>{}</b></td><td class=\"{class}\">{verdict}</td><td class=\"n\">{}</td><td>{}",
            escape(&check.name),
            count(check.events),
            escape(&check.promise)
        );
        if let Some(note) = &check.note {
            let _ = write!(page.0, "<p class=\"void\">{}</p>", escape(note));
        }
        if !check.violations.is_empty() {
            let _ = write!(page.0, "<p>{} violations:</p><ul>", count(check.violations_total));
            for violation in &check.violations {
                let _ = write!(page.0, "<li><code>{}</code></li>", escape(violation));
            }
            page.0.push_str("</ul>");
        }
        page.0.push_str("</td></tr>");
    }
    page.end();
    for expectation in &result.expectations {
        let class = if expectation.met { "held" } else { "broken" };
        let was = expectation.was.map_or("not enough samples".to_owned(), |was| format!("{was:.1}"));
        let _ = write!(
            page.0,
            "<p class=\"{class}\">{} at most {}: {was}</p>",
            escape(&expectation.name),
            expectation.at_most
        );
    }
}

fn outcomes(page: &mut Page, result: &RunResult) {
    page.0.push_str("<h2>Publications</h2>");
    page.head(&["", "attempted", "accepted", "undetermined", "rejected", "accepted/s"]);
    for (name, phase) in &result.publish.phases {
        let counts = [phase.attempted, phase.accepted, phase.undetermined, phase.rejected].map(count);
        let per_s = format!("{:.1}", phase.per_s);
        page.row(&[name, &counts[0], &counts[1], &counts[2], &counts[3], &per_s]);
    }
    let (made, expected) = (result.propagation.deliveries_made, result.propagation.deliveries_expected);
    let gap = ms(result.availability.longest_gap_ms);
    let (made, expected) = (count(made), count(expected));
    let _ = write!(
        page.0,
        "</table></div><p>{made} of {expected} deliveries made; longest time without an accepted update: {gap}</p>"
    );
}

/// What the network was asked to be, and was.
fn network(page: &mut Page, result: &RunResult, metrics: &Metrics) {
    let network = &result.network;
    if network.pairs == 0 {
        return;
    }
    page.0.push_str("<h2>Network</h2>");
    page.head(&["", "all", "off by more than 2 ms or 2 %", "error p50", "error p99"]);
    let off = |pct: Option<f64>| pct.map_or("-".to_owned(), |pct| format!("{pct:.2} %"));
    let (p50, p99) = (ms(network.rtt_error_ms_p50), ms(network.rtt_error_ms_p99));
    page.row(&["pairs of hosts", &count(network.pairs), &count(network.pairs_bad), "", ""]);
    page.row(&["round trips", &count(network.probes), &off(network.probes_off_pct), &p50, &p99]);
    page.row(&["packets", &count(network.packets), &off(network.late_packets_pct), "", ""]);
    page.end();
    let _ = write!(page.0, "<p>{} packets were lost on the way, as asked</p>", count(network.lost_packets));
    if !metrics.round_trips.is_empty() {
        let chart = svg::round_trips(&metrics.round_trips);
        let _ = write!(
            page.0,
            "<h2>Round trips, asked and got</h2>{chart}<p>One point for each pair: the median by error.</p>"
        );
    }
}

fn faults_and_usage(page: &mut Page, result: &RunResult) {
    if !result.faults.is_empty() {
        page.0.push_str("<h2>Faults</h2>");
        page.head(&["fault", "target", "at", "lasted", "undone"]);
        for fault in &result.faults {
            let lasted = fault.lasted_s.map_or("-".to_owned(), |lasted_s| format!("{lasted_s:.2} s"));
            let undone = if fault.undone { "yes" } else { "no" };
            page.row(&[&fault.kind, &fault.target, &format!("{:.2} s", fault.at_s), &lasted, undone]);
        }
        page.end();
    }
    page.0.push_str("<h2>Resources</h2>");
    page.head(&["role", "processor, all together", "most memory of one", "served"]);
    let resources = &result.resources;
    let roles = [
        ("storage points", &resources.storage_point),
        ("caches", &resources.cache),
        ("receivers", &resources.receiver),
    ];
    for (name, usage) in roles {
        let cpu = usage.cpu_s.map_or("-".to_owned(), |cpu_s| format!("{cpu_s:.1} s"));
        let rss = usage.rss_mib_max.map_or("-".to_owned(), |rss_mib| format!("{rss_mib:.1} MiB"));
        let bytes = usage.bytes_out.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / 1048576.0));
        page.row(&[name, &cpu, &rss, &bytes]);
    }
    page.end();
    if let Some(machine) = resources.machine {
        let _ = write!(
            page.0,
            "<p>The machine has {} processors, which were busy {:.0} % of the time; {:.0} % was not theirs.</p>",
            machine.processors, machine.busy_pct, machine.stolen_pct
        );
    }
}
