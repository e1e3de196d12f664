//! `acms status`: how storage points are.

use super::{Exit, Source, output::Output};
use crate::client::{ClientError, ClientOptions};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Arguments of `acms status`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    from: Source,
}

/// Columns: title, and where the status has it.
const COLUMNS: [(&str, &str); 7] = [
    ("SP", "sp"),
    ("INCARNATION", "incarnation"),
    ("SEQUENCE", "sequence"),
    ("ROOT", "root"),
    ("PATHS", "paths"),
    ("PENDING", "pending"),
    ("PEERS", "peers_connected"),
];

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let timeout = Duration::from_secs(3);
    let options = ClientOptions { connect_timeout: timeout, io_timeout: timeout, ..ClientOptions::default() };
    let client = match args.from.client(options) {
        Ok(client) => client,
        Err(error) => return output.client_error(&error),
    };
    let answers: Vec<Result<Value, ClientError>> = std::thread::scope(|scope| {
        let client = &client;
        let asking: Vec<_> = (0..client.urls().len()).map(|url| scope.spawn(move || client.status_of(url))).collect();
        let asked = asking.into_iter().map(|thread| thread.join().unwrap_or(Err(ClientError::NoUrl)));
        asked.collect()
    });
    let rows: Vec<(String, Result<Value, ClientError>)> =
        client.urls().iter().map(ToString::to_string).zip(answers).collect();
    if output.json {
        rows.iter().for_each(|(url, answer)| output.object(&as_json(url, answer)));
    } else {
        table(&rows).iter().for_each(|line| output.line(line));
    }
    if rows.iter().all(|(_, answer)| answer.is_ok()) { Exit::Done } else { Exit::Failed }
}

fn as_json(url: &str, answer: &Result<Value, ClientError>) -> Value {
    match answer {
        Ok(Value::Object(status)) => {
            let mut all = Map::from_iter([("url".to_owned(), json!(url)), ("reachable".to_owned(), json!(true))]);
            all.extend(status.clone());
            Value::Object(all)
        }
        Ok(other) => json!({"url": url, "reachable": true, "status": other}),
        Err(error) => json!({"url": url, "reachable": false, "error": error.to_string(), "remedy": error.remedy()}),
    }
}

/// Aligned columns; a storage point that does not answer has its error instead of its numbers.
fn table(rows: &[(String, Result<Value, ClientError>)]) -> Vec<String> {
    let titles = COLUMNS.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
    let numbers = |status: &Value| COLUMNS.iter().map(|(_, name)| cell(name, find(status, name))).collect::<Vec<_>>();
    let mut cells = vec![("URL", Ok(titles))];
    cells.extend(rows.iter().map(|(url, answer)| (url.as_str(), answer.as_ref().map(numbers))));
    let full = cells.iter().filter_map(|(_, row)| row.as_ref().ok());
    let widths = full.fold([0; COLUMNS.len()], |mut widths, row| {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
        widths
    });
    let url_width = cells.iter().map(|(url, _)| url.len()).max().unwrap_or(0);
    let line = |(url, row): &(&str, Result<Vec<String>, &ClientError>)| match row {
        Err(error) => format!("{url:<url_width$}  {error}"),
        Ok(row) => {
            let row: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{url:<url_width$}  {}", row.join("  ")).trim_end().to_owned()
        }
    };
    cells.iter().map(line).collect()
}

/// A member of this name, at any depth.
fn find<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let object = status.as_object()?;
    object.get(name).or_else(|| object.values().find_map(|value| find(value, name)))
}

fn cell(name: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if name == "root" => text.chars().take(12).collect(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.len().to_string(),
        Some(other) => other.to_string(),
    }
}
