//! Results of several runs side by side, as text.

use super::{
    RunResult,
    summary::{between, ms},
};

/// A table with a row for each figure and a column for each run.
pub fn compare(results: &[(String, RunResult)]) -> String {
    type Row = (&'static str, fn(&RunResult) -> String);
    let rows: [Row; 26] = [
        ("scenario", |r| r.scenario.clone()),
        ("backend", |r| r.backend.clone()),
        ("seed", |r| r.seed.to_string()),
        ("commit", |r| r.commit.clone()),
        ("wall s", |r| format!("{:.1}", r.wall_s)),
        ("storage points", |r| r.hosts.storage_points.to_string()),
        ("receivers", |r| r.hosts.receivers.to_string()),
        ("attempted", |r| r.publish.attempted.to_string()),
        ("accepted", |r| r.publish.accepted.to_string()),
        ("undetermined", |r| r.publish.undetermined.to_string()),
        ("rejected", |r| r.publish.rejected.to_string()),
        ("acceptance p50", |r| ms(r.publish.latency_ms.p50)),
        ("acceptance p90", |r| ms(r.publish.latency_ms.p90)),
        ("acceptance p99", |r| ms(r.publish.latency_ms.p99)),
        ("acceptance p99, 95 % CI", |r| between(r.publish.latency_ms.ci95.and_then(|intervals| intervals.p99))),
        ("receiver p50", |r| ms(r.propagation.per_receiver_ms.p50)),
        ("receiver p90", |r| ms(r.propagation.per_receiver_ms.p90)),
        ("receiver p99", |r| ms(r.propagation.per_receiver_ms.p99)),
        ("receiver p99.9", |r| ms(r.propagation.per_receiver_ms.p999)),
        ("to 100 % p50", |r| ms(r.propagation.convergence_ms.get("100").and_then(|quantiles| quantiles.p50))),
        ("to 100 % p50, 95 % CI", |r| {
            let quantiles = r.propagation.convergence_ms.get("100");
            between(quantiles.and_then(|quantiles| quantiles.ci95?.p50))
        }),
        ("round trips off", |r| r.network.probes_off_pct.map_or("-".to_owned(), |pct| format!("{pct:.2} %"))),
        ("machine busy", |r| {
            r.resources.machine.map_or("-".to_owned(), |machine| format!("{:.0} %", machine.busy_pct))
        }),
        ("longest gap", |r| ms(r.availability.longest_gap_ms)),
        ("measurement", |r| r.invalid().map_or("valid", |_| "INVALID").to_owned()),
        ("checks", |r| if r.passed() { "held".to_owned() } else { format!("BROKEN {}", r.failures().join(" ")) }),
    ];
    let mut columns: Vec<Vec<String>> =
        vec![std::iter::once(String::new()).chain(rows.map(|(name, _)| name.to_owned())).collect()];
    for (name, result) in results {
        columns.push(std::iter::once(name.clone()).chain(rows.map(|(_, figure)| figure(result))).collect());
    }
    let widths: Vec<usize> =
        columns.iter().map(|column| column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in 0..=rows.len() {
        for (column, width) in columns.iter().zip(&widths) {
            text.push_str(&format!("{:<width$}  ", column[row]));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checks::testing::trace, metrics::Metrics, scenario::Scenario};
    use acms_engine::protocol::Hash;

    #[test]
    fn an_invalid_measurement_is_told() {
        let scenario = Scenario::load("smoke", &[]).unwrap();
        let got = |us: u32| {
            let metrics = Metrics::of(&trace(&format!("1 sp1 probe outcome=sp2 cause=asked_us=20000;got_us={us}")));
            RunResult::new(&scenario, "local", &metrics, Vec::new(), Hash::of(b""), Vec::new())
        };
        let (good, bad) = (got(20_001), got(90_000));
        let json = [&good, &bad].map(|result| serde_json::to_value(result).unwrap()["invalid"].clone());
        assert!(json[0].is_null() && json[1].as_str().unwrap().contains("1 of 1 pairs"), "{json:?}");
        let table = compare(&[("good".to_owned(), good), ("bad".to_owned(), bad)]);
        let row = table.lines().find(|line| line.starts_with("measurement")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["measurement", "valid", "INVALID"]);
    }
}
