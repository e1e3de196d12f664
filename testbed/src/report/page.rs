//! `report.html`: one file that needs nothing else.

use super::{
    RunResult,
    summary::{count, ms},
    svg,
};
use crate::metrics::{Metrics, Quantiles};
use std::fmt::Write as _;

const STYLE: &str = "
  body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; background: #fff }
  h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
  table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde3ea }
  td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
  .held { color: #17703c } .broken { color: #b3261e; font-weight: bold } .void { color: #8a5a00 } code, li { overflow-wrap: anywhere }
  svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: #52606d } polyline { fill: none; stroke-width: 2 }
  .grid { stroke: #e6ebf0 } .axis { stroke: #9aa7b4 } .curve, .accepted { stroke: #1f6feb } .undetermined { stroke: #c9820a }
  .rejected { stroke: #b3261e } .fault { fill: #b3261e; opacity: .1 } .key { font-weight: bold }
  @media (prefers-color-scheme: dark) { body { color: #d7dee6; background: #12181f } th, td { border-color: #2a3541 } .grid { stroke: #232d38 }
    svg { fill: #9aa7b4 } .held { color: #5fd08d } .broken { color: #ff8a80 } }
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
        self.0.push_str("<table><tr>");
        for (i, cell) in cells.iter().enumerate() {
            let _ = write!(self.0, "<th{}>{cell}</th>", if i > 0 { " class=\"n\"" } else { "" });
        }
        self.0.push_str("</tr>");
    }

    fn quantiles(&mut self, name: &str, quantiles: &Quantiles) {
        let Quantiles { p50, p90, p99, p999, max, samples } = *quantiles;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(ms);
        self.row(&[name, &p50, &p90, &p99, &p999, &max, &count(samples)]);
    }
}

/// The whole page.
pub fn page(result: &RunResult, metrics: &Metrics) -> String {
    let name = escape(&result.scenario);
    let mut page = Page(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>"
    ));
    let (class, verdict) = match result.passed() {
        false => ("broken", "failed"),
        true if result.invalid().is_some() => ("void", "invalid"),
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
    page.0.push_str("<h2>Latency</h2>");
    page.head(&["from due to", "p50", "p90", "p99", "p99.9", "max", "samples"]);
    page.quantiles("accepted", &result.publish.latency_ms);
    page.quantiles("verified at a receiver", &result.propagation.per_receiver_ms);
    page.quantiles("durable at a receiver", &result.propagation.applied_ms);
    for (percent, quantiles) in &result.propagation.convergence_ms {
        page.quantiles(&format!("{percent} % of receivers"), quantiles);
    }
    page.0.push_str("</table>");
    if let Some((_, histogram)) = metrics.histograms.iter().find(|(name, _)| *name == "propagation") {
        let _ = write!(page.0, "<h2>Convergence</h2>{}", svg::convergence(histogram));
    }
    if !metrics.timeline.is_empty() {
        let chart = svg::timeline(&metrics.timeline, &result.faults);
        let _ =
            write!(page.0, "<h2>Updates and faults</h2>{chart}<p>accepted blue, undetermined amber, rejected red</p>");
    }
    network(&mut page, result);
    faults_and_usage(&mut page, result);
    if !result.notes.is_empty() {
        page.0.push_str("<h2>Notes</h2><ul>");
        for note in &result.notes {
            let _ = write!(page.0, "<li>{}</li>", escape(note));
        }
        page.0.push_str("</ul>");
    }
    let _ = write!(page.0, "<p>Trace <code>{}</code></p></body></html>", escape(&result.trace_hash));
    page.0
}

fn checks(page: &mut Page, result: &RunResult) {
    page.0.push_str("<h2>Promises</h2><table><tr><th></th><th></th><th class=\"n\">events</th><th></th></tr>");
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
    page.0.push_str("</table>");
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
        "</table><p>{made} of {expected} deliveries made; longest time without an accepted update: {gap}</p>"
    );
}

/// What the network was asked to be, and was.
fn network(page: &mut Page, result: &RunResult) {
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
    let _ = write!(page.0, "</table><p>{} packets were lost on the way, as asked</p>", count(network.lost_packets));
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
        page.0.push_str("</table>");
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
    page.0.push_str("</table>");
}
