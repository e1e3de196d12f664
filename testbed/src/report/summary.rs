//! The summary on standard output.

use super::{CheckResult, RunResult};
use crate::metrics::Quantiles;
use std::{fmt::Write as _, path::Path};

/// A number of milliseconds as people read it.
pub(super) fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
    }
}

/// From where to where something lies with confidence, in milliseconds.
pub(super) fn between(interval: Option<[f64; 2]>) -> String {
    interval.map_or("-".to_owned(), |[from, to]| format!("{} to {}", ms(Some(from)), ms(Some(to))))
}

/// A count with separators.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Table(String);

impl Table {
    fn line(&mut self, name: &str, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "  {name:<14} {text}");
    }

    fn quantiles(&mut self, name: &str, quantiles: &Quantiles) {
        let Quantiles { p50, p90, p99, max, samples, .. } = quantiles;
        let [p50, p90, p99, max] = [p50, p90, p99, max].map(|value| ms(*value));
        let _ = writeln!(self.0, "  {name:<14} {p50:>9} {p90:>9} {p99:>9} {max:>9}   {:>9}", count(*samples));
    }
}

/// What a person wants to know of a run.
pub fn summary(result: &RunResult, dir: &Path) -> String {
    let mut table = Table(String::new());
    let _ = writeln!(
        table.0,
        "\n{} on {} (seed {}), {:.1} s\n",
        result.scenario, result.backend, result.seed, result.wall_s
    );
    let hosts = result.hosts;
    let caches = if hosts.caches > 0 { format!("{} caches, ", hosts.caches) } else { String::new() };
    table.line("hosts", &format!("{} storage points, {caches}{} receivers", hosts.storage_points, hosts.receivers));
    network_lines(&mut table, result);
    for (name, phase) in &result.publish.phases {
        let text = format!(
            "{} published: {} accepted, {} undetermined, {} rejected ({:.1} accepted/s)",
            count(phase.attempted),
            count(phase.accepted),
            count(phase.undetermined),
            count(phase.rejected),
            phase.per_s
        );
        table.line(name, &text);
    }
    let propagation = &result.propagation;
    let (made, expected) = (count(propagation.deliveries_made), count(propagation.deliveries_expected));
    table.line("deliveries", &format!("{made} of {expected} made (of the {})", result.publish.latency_phase));
    let freshness = &result.freshness;
    if freshness.claims > 0 {
        let claims = count(freshness.claims);
        let epsilon = ms(Some(freshness.epsilon_ms));
        table.line("as-of", &format!("{claims} times told; epsilon is {epsilon}"));
        for (who, errors, most) in [
            ("at receivers", freshness.receiver_errors, freshness.receiver_error_ms_max),
            ("at sps", freshness.storage_point_errors, freshness.storage_point_error_ms_max),
        ] {
            let (errors, most) = (count(errors), ms(Some(most)));
            table.line("", &format!("{who} {errors} times beyond what was there, by {most} at most"));
        }
    }
    table.line("longest gap", &format!("{} without an accepted update", ms(result.availability.longest_gap_ms)));
    for note in &result.notes {
        table.line("note", note);
    }
    let _ = writeln!(table.0, "\n  {:<14} {:>9} {:>9} {:>9} {:>9}   {:>9}", "", "p50", "p90", "p99", "max", "samples");
    table.quantiles("acceptance", &result.publish.latency_ms);
    table.quantiles("to a receiver", &propagation.per_receiver_ms);
    table.quantiles("durable there", &propagation.applied_ms);
    if result.freshness.receiver_staleness_ms.samples > 0 {
        table.quantiles("as-of behind", &result.freshness.receiver_staleness_ms);
    }
    for percent in ["50", "90", "99", "99.9", "100"] {
        if let Some(quantiles) = propagation.convergence_ms.get(percent).filter(|quantiles| quantiles.samples > 0) {
            table.quantiles(&format!("to {percent} %"), quantiles);
        }
    }
    fault_lines(&mut table, result);
    resource_lines(&mut table, result);
    let _ = writeln!(table.0, "\n{}", check_lines(&result.checks));
    for expectation in &result.expectations {
        let verdict = if expectation.met { "met" } else { "NOT MET" };
        let was = expectation.was.map_or("too few samples, or no such metric".to_owned(), |was| format!("{was:.1}"));
        table.line(verdict, &format!("{} at most {}: was {was}", expectation.name, expectation.at_most));
    }
    let failures = result.failures();
    let verdict = match failures.as_slice() {
        _ if result.checks.iter().all(|check| check.held) && result.invalid().is_some() => {
            format!("INVALID: {}", result.invalid().unwrap_or_default())
        }
        [] => "PASSED: every promise was kept.".to_owned(),
        names => format!("FAILED: {}", names.join(", ")),
    };
    let _ = writeln!(table.0, "{verdict}\nResults are in {0}: report.html, result.json, events.arrow", dir.display());
    table.0
}

fn percent(pct: Option<f64>) -> String {
    pct.map_or("-".to_owned(), |pct| format!("{pct:.2} %"))
}

fn network_lines(table: &mut Table, result: &RunResult) {
    let network = &result.network;
    if network.pairs == 0 {
        return;
    }
    let text = format!(
        "{} of {} pairs and {} of {} round trips off by more than 2 ms or 2 %; error p50 {}, p99 {}",
        count(network.pairs_bad),
        count(network.pairs),
        percent(network.probes_off_pct),
        count(network.probes),
        ms(network.rtt_error_ms_p50),
        ms(network.rtt_error_ms_p99)
    );
    table.line("network", &text);
    let (packets, lost) = (count(network.packets), count(network.lost_packets));
    table.line("", &format!("{packets} packets carried, {} late, {lost} lost", percent(network.late_packets_pct)));
}

fn fault_lines(table: &mut Table, result: &RunResult) {
    if !result.faults.is_empty() {
        table.0.push('\n');
    }
    for fault in &result.faults {
        let undone = match fault.lasted_s {
            Some(lasted_s) => format!("undone after {lasted_s:.1} s"),
            None => "not undone".to_owned(),
        };
        table.line("fault", &format!("{} of {} at {:.1} s, {undone}", fault.kind, fault.target, fault.at_s));
    }
}

fn resource_lines(table: &mut Table, result: &RunResult) {
    let resources = &result.resources;
    let roles = [("sp", &resources.storage_point), ("cache", &resources.cache), ("receiver", &resources.receiver)];
    for (name, usage) in roles {
        if let (Some(cpu_s), Some(rss_mib)) = (usage.cpu_s, usage.rss_mib_max) {
            let bytes =
                usage.bytes_out.map_or(String::new(), |bytes| format!(", {:.1} MiB served", bytes as f64 / 1048576.0));
            table.line(
                &format!("{name} usage"),
                &format!("{cpu_s:.1} s of processor in all, at most {rss_mib:.0} MiB each{bytes}"),
            );
        }
    }
}

/// The checks, a line for each, and the violations below.
pub fn check_lines(checks: &[CheckResult]) -> String {
    let mut text = String::new();
    for check in checks {
        let verdict = match (check.held, &check.note) {
            (false, _) => "BROKEN",
            (true, Some(_)) if check.events == 0 => "void",
            (true, _) => "held",
        };
        let _ = writeln!(text, "  {:<6} {verdict:<7} {:>10} events   {}", check.name, count(check.events), check.title);
        if let Some(note) = &check.note {
            let _ = writeln!(text, "         {note}");
        }
        for violation in check.violations.iter().take(5) {
            let _ = writeln!(text, "         - {violation}");
        }
        if check.violations_total > 5 {
            let _ = writeln!(text, "         - and {} more", check.violations_total - 5);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
        assert_eq!(
            [ms(None), ms(Some(1.234)), ms(Some(250.4)), ms(Some(61_000.0))],
            ["-", "1.23 ms", "250 ms", "61.00 s"]
        );
    }
}
