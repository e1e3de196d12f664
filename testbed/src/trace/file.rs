//! The trace on disk: one table in the Arrow IPC file format, which polars, pandas and pyarrow read.
//!
//! Columns: `time_ns` (u64), `process`, `incarnation` (u32), `kind`, `publication`, `path`, `uid`, `hash`, `outcome`,
//! `cause`; texts are dictionary encoded, absent ones null.

use super::{Event, Kind, Text, Trace};
use acms_engine::protocol::{Hash, Uid};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
    builder::StringDictionaryBuilder, types::Int32Type,
};
use arrow_ipc::{reader::FileReader, writer::FileWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use std::{collections::BTreeMap, fs::File, io::BufWriter, path::Path, sync::Arc};

/// Why a trace could not be written or read. Nothing else changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceFileError {
    /// The file cannot be opened or made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not an Arrow file, or the disk failed.
    #[error("{path}: {source}")]
    Arrow {
        /// Which.
        path: String,
        /// Why.
        source: ArrowError,
    },
    /// An Arrow file that is no trace.
    #[error("{path}: not a trace: {what}")]
    NotATrace {
        /// Which.
        path: String,
        /// What is wrong.
        what: String,
    },
}

const TEXT_COLUMNS: [&str; 8] = ["process", "kind", "publication", "path", "uid", "hash", "outcome", "cause"];

fn schema() -> Schema {
    let text = |name: &str| {
        let of = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        Field::new(name, of, !matches!(name, "process" | "kind"))
    };
    let mut fields = vec![Field::new("time_ns", DataType::UInt64, false)];
    fields.extend(TEXT_COLUMNS.into_iter().map(text));
    fields.insert(2, Field::new("incarnation", DataType::UInt32, false));
    Schema::new(fields)
}

fn texts<'a>(events: &'a [Event], of: impl Fn(&'a Event) -> Option<std::borrow::Cow<'a, str>>) -> ArrayRef {
    let mut column = StringDictionaryBuilder::<Int32Type>::new();
    for event in events {
        match of(event) {
            Some(text) => column.append_value(text),
            None => column.append_null(),
        }
    }
    Arc::new(column.finish())
}

fn table(events: &[Event]) -> Result<RecordBatch, ArrowError> {
    let optional = |of: fn(&Event) -> &Option<Text>| texts(events, move |event| of(event).as_deref().map(Into::into));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.time_ns))),
        texts(events, |event| Some((&*event.process).into())),
        Arc::new(UInt32Array::from_iter_values(events.iter().map(|event| event.incarnation))),
        texts(events, |event| Some(event.kind.name().into())),
        optional(|event| &event.publication),
        optional(|event| &event.path),
        texts(events, |event| event.uid.map(|uid| uid.to_string().into())),
        texts(events, |event| event.hash.map(|hash| hash.to_string().into())),
        optional(|event| &event.outcome),
        optional(|event| &event.cause),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns)
}

/// Writes `trace` to a new file at `path`.
pub fn write(trace: &Trace, path: &Path) -> Result<(), TraceFileError> {
    let name = || path.display().to_string();
    let file = File::create(path).map_err(|source| TraceFileError::Io { path: name(), source })?;
    let write = || {
        let mut writer = FileWriter::try_new(BufWriter::new(file), &schema())?;
        writer.write(&table(trace.events())?)?;
        writer.finish()
    };
    write().map_err(|source| TraceFileError::Arrow { path: name(), source })
}

/// Reads the trace that [`write()`] made at `path`.
pub fn read(path: &Path) -> Result<Trace, TraceFileError> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|source| TraceFileError::Io { path: name(), source })?;
    let arrow = |source| TraceFileError::Arrow { path: name(), source };
    let mut events = Vec::new();
    for batch in FileReader::try_new_buffered(file, None).map_err(arrow)? {
        let batch = batch.map_err(arrow)?;
        add_events(&batch, &mut events).map_err(|what| TraceFileError::NotATrace { path: name(), what })?;
    }
    Ok(Trace::new(events))
}

/// A dictionary column with each of its values converted once.
struct Column<'a, T> {
    array: &'a DictionaryArray<Int32Type>,
    values: Vec<T>,
}

impl<T: Clone> Column<'_, T> {
    fn at(&self, row: usize) -> Option<T> {
        self.array.key(row).and_then(|key| self.values.get(key)).cloned()
    }

    fn required(&self, row: usize, name: &str) -> Result<T, String> {
        self.at(row).ok_or_else(|| format!("row {row} has no {name}"))
    }
}

fn column<'a, T>(
    batch: &'a RecordBatch,
    name: &str,
    convert: impl FnMut(&'a str) -> Result<T, String>,
) -> Result<Column<'a, T>, String> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?;
    let array: &DictionaryArray<Int32Type> =
        array.as_any().downcast_ref().ok_or_else(|| format!("column {name} is not a dictionary of texts"))?;
    let values: &StringArray =
        array.values().as_any().downcast_ref().ok_or_else(|| format!("column {name} does not hold texts"))?;
    let values = values.iter().map(Option::unwrap_or_default).map(convert).collect::<Result<Vec<T>, String>>()?;
    Ok(Column { array, values })
}

fn numbers<'a, A: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?;
    array.as_any().downcast_ref().ok_or_else(|| format!("column {name} has another type"))
}

fn add_events(batch: &RecordBatch, events: &mut Vec<Event>) -> Result<(), String> {
    let mut known: BTreeMap<&str, Text> = BTreeMap::new();
    let mut text = |text| Ok(Text::clone(known.entry(text).or_insert_with(|| text.into())));
    let process = column(batch, "process", &mut text)?;
    let publication = column(batch, "publication", &mut text)?;
    let path = column(batch, "path", &mut text)?;
    let outcome = column(batch, "outcome", &mut text)?;
    let cause = column(batch, "cause", &mut text)?;
    let kind = column(batch, "kind", |name| name.parse::<Kind>().map_err(|error| error.to_string()))?;
    let uid = column(batch, "uid", |text| text.parse::<Uid>().map_err(|error| error.to_string()))?;
    let hash = column(batch, "hash", |text| text.parse::<Hash>().map_err(|error| error.to_string()))?;
    let time_ns: &UInt64Array = numbers(batch, "time_ns")?;
    let incarnation: &UInt32Array = numbers(batch, "incarnation")?;
    events.reserve(batch.num_rows());
    for row in 0..batch.num_rows() {
        events.push(Event {
            time_ns: time_ns.value(row),
            process: process.required(row, "process")?,
            incarnation: incarnation.value(row),
            kind: kind.required(row, "kind")?,
            publication: publication.at(row),
            path: path.at(row),
            uid: uid.at(row),
            hash: hash.at(row),
            outcome: outcome.at(row),
            cause: cause.at(row),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut full = Event::new(2, &"sp1".into(), 3, Kind::Agreed);
        full.publication = Some("k".into());
        full.path = Some("a/b".into());
        full.uid = Some("9.1.0".parse().unwrap());
        full.hash = Some(Hash::of(b"content"));
        full.outcome = Some("accepted".into());
        full.cause = Some("because".into());
        let trace = Trace::new(vec![full, Event::new(1, &"testbed".into(), 0, Kind::Phase)]);
        let path = dir.path().join("events.arrow");
        write(&trace, &path).unwrap();
        let again = read(&path).unwrap();
        assert_eq!(again, trace);
        assert_eq!(again.hash(), trace.hash());
        assert_ne!(trace.hash(), Trace::default().hash());
    }

    #[test]
    fn what_is_no_trace_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(matches!(read(&path), Err(TraceFileError::Io { .. })));
        std::fs::write(&path, b"hello, this is no trace").unwrap();
        assert!(matches!(read(&path), Err(TraceFileError::Arrow { .. })));
    }
}
