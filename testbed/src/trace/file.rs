//! The trace on disk: one table in the Arrow IPC file format, which polars, pandas and pyarrow read.
//!
//! Columns: `time_ns` (u64), `process`, `incarnation` (u32), `kind`, `publication`, `path`, `uid`, `hash`, `outcome`,
//! `cause`; absent texts are null. Rows are in the order of time. Batches of 32,768 rows, LZ4 compressed, are written as
//! the events come and read one at a time, so that a trace of any length needs the room of one batch.

use super::{Event, Kind, Sink, Text, Trace};
use acms_engine::protocol::{Hash, Uid};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array, builder::StringBuilder};
use arrow_ipc::{
    CompressionType,
    reader::FileReader,
    writer::{FileWriter, IpcWriteOptions},
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use std::{
    fmt::Write as _,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Rows of a batch.
const BATCH: usize = 32_768;

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
    /// It cannot be written.
    #[error("{path}: {source}")]
    Arrow {
        /// Which.
        path: String,
        /// Why.
        source: ArrowError,
    },
    /// Not an Arrow file, or only the beginning of one.
    #[error("{path}: not a whole trace ({source}): give events.arrow of a run that has ended")]
    NotWhole {
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

fn schema() -> Schema {
    let text = |name: &str, is_nullable| Field::new(name, DataType::Utf8, is_nullable);
    Schema::new(vec![
        Field::new("time_ns", DataType::UInt64, false),
        text("process", false),
        Field::new("incarnation", DataType::UInt32, false),
        text("kind", false),
        text("publication", true),
        text("path", true),
        text("uid", true),
        text("hash", true),
        text("outcome", true),
        text("cause", true),
    ])
}

fn texts<'a>(events: &'a [Event], of: impl Fn(&'a Event) -> Option<&'a Text>) -> ArrayRef {
    Arc::new(events.iter().map(|event| of(event).map(|text| &**text)).collect::<StringArray>())
}

fn shown<'a, T: std::fmt::Display>(events: &'a [Event], of: impl Fn(&'a Event) -> Option<T>) -> ArrayRef {
    let mut column = StringBuilder::with_capacity(events.len(), events.len() * 24);
    for event in events {
        match of(event) {
            Some(value) => {
                // Writing to memory does not fail.
                let _ = write!(column, "{value}");
                column.append_value("");
            }
            None => column.append_null(),
        }
    }
    Arc::new(column.finish())
}

fn table(schema: &Arc<Schema>, events: &[Event]) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(events.iter().map(|event| event.time_ns))),
        texts(events, |event| Some(&event.process)),
        Arc::new(UInt32Array::from_iter_values(events.iter().map(|event| event.incarnation))),
        shown(events, |event| Some(event.kind)),
        texts(events, |event| event.publication.as_ref()),
        texts(events, |event| event.path.as_ref()),
        shown(events, |event| event.uid),
        shown(events, |event| event.hash),
        texts(events, |event| event.outcome.as_ref()),
        texts(events, |event| event.cause.as_ref()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Writes events to a file as they come. What fails is told by [`TraceWriter::finish`].
pub struct TraceWriter {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: FileWriter<BufWriter<File>>,
    batch: Vec<Event>,
    failed: Option<ArrowError>,
}

impl std::fmt::Debug for TraceWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceWriter").field("path", &self.path).field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl TraceWriter {
    /// A new file at `path`.
    pub fn create(path: &Path) -> Result<TraceWriter, TraceFileError> {
        let name = || path.display().to_string();
        let file = File::create(path).map_err(|source| TraceFileError::Io { path: name(), source })?;
        let schema = Arc::new(schema());
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME));
        let writer =
            options.and_then(|options| FileWriter::try_new_with_options(BufWriter::new(file), &schema, options));
        let writer = writer.map_err(|source| TraceFileError::Arrow { path: name(), source })?;
        Ok(TraceWriter { path: path.to_owned(), schema, writer, batch: Vec::with_capacity(BATCH), failed: None })
    }

    fn flush(&mut self) {
        if self.failed.is_none() && !self.batch.is_empty() {
            let written = table(&self.schema, &self.batch).and_then(|table| self.writer.write(&table));
            self.failed = written.err();
        }
        self.batch.clear();
    }

    /// Completes the file. A file that was not completed cannot be read.
    pub fn finish(mut self) -> Result<(), TraceFileError> {
        self.flush();
        let result = self.failed.map_or_else(|| self.writer.finish(), Err);
        result.map_err(|source| TraceFileError::Arrow { path: self.path.display().to_string(), source })
    }
}

impl Sink for TraceWriter {
    fn record(&mut self, event: Event) {
        self.batch.push(event);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }
}

/// Writes `trace` to a new file at `path`.
pub fn write(trace: &Trace, path: &Path) -> Result<(), TraceFileError> {
    let mut writer = TraceWriter::create(path)?;
    trace.events().iter().for_each(|event| writer.record(event.clone()));
    writer.finish()
}

/// Reads the trace at `path` as a whole.
pub fn read(path: &Path) -> Result<Trace, TraceFileError> {
    let mut trace = Trace::default();
    stream(path, &mut trace)?;
    Ok(trace)
}

/// Gives each event of the trace at `path` to `sink`, batch by batch. What comes before an error was given.
pub fn stream(path: &Path, sink: &mut (impl Sink + ?Sized)) -> Result<(), TraceFileError> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|source| TraceFileError::Io { path: name(), source })?;
    let arrow = |source| TraceFileError::NotWhole { path: name(), source };
    let mut texts = Texts::default();
    let mut last_ns = 0;
    for batch in FileReader::try_new_buffered(file, None).map_err(arrow)? {
        let rows = Rows::of(batch.map_err(arrow)?);
        let result = rows.and_then(|rows| rows.feed(&mut texts, &mut last_ns, sink));
        result.map_err(|what| TraceFileError::NotATrace { path: name(), what })?;
    }
    Ok(())
}

/// Texts that were read lately, so that events share them. A place for each, by a hash of its bytes.
#[derive(Default)]
struct Texts(Vec<Option<Text>>);

impl Texts {
    const PLACES: usize = 1 << 16;

    fn text(&mut self, text: &str) -> Text {
        if self.0.is_empty() {
            self.0.resize(Texts::PLACES, None);
        }
        // FNV-1a.
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let place = &mut self.0[(hash ^ (hash >> 32)) as usize % Texts::PLACES];
        match place {
            Some(known) if **known == *text => Text::clone(known),
            _ => Text::clone(place.insert(text.into())),
        }
    }
}

/// The columns of a batch.
struct Rows {
    time_ns: UInt64Array,
    incarnation: UInt32Array,
    texts: [StringArray; 8],
}

const TEXT_COLUMNS: [&str; 8] = ["process", "kind", "publication", "path", "uid", "hash", "outcome", "cause"];

impl Rows {
    fn of(batch: RecordBatch) -> Result<Rows, String> {
        fn column<A: Array + Clone + 'static>(batch: &RecordBatch, name: &str) -> Result<A, String> {
            let array = batch.column_by_name(name).ok_or_else(|| format!("there is no column {name}"))?;
            array.as_any().downcast_ref().cloned().ok_or_else(|| format!("column {name} has another type"))
        }
        let texts = TEXT_COLUMNS.map(|name| column(&batch, name)).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Rows {
            time_ns: column(&batch, "time_ns")?,
            incarnation: column(&batch, "incarnation")?,
            texts: texts.try_into().expect("as many as there are names"),
        })
    }

    fn feed(self, known: &mut Texts, last_ns: &mut u64, sink: &mut (impl Sink + ?Sized)) -> Result<(), String> {
        fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
            text.parse().map_err(|error: T::Err| error.to_string())
        }
        let [process, kind, publication, path, uid, hash, outcome, cause] = &self.texts;
        for row in 0..self.time_ns.len() {
            let at = |column: &StringArray| column.is_valid(row).then_some(row);
            let mut text = |column: &StringArray| at(column).map(|row| known.text(column.value(row)));
            let time_ns = self.time_ns.value(row);
            if time_ns < *last_ns {
                return Err(format!("an event at {time_ns} comes after one at {last_ns}"));
            }
            *last_ns = time_ns;
            sink.record(Event {
                time_ns,
                process: text(process).ok_or("an event has no process")?,
                incarnation: self.incarnation.value(row),
                kind: at(kind).map(|row| parse::<Kind>(kind.value(row))).ok_or("an event has no kind")??,
                publication: text(publication),
                path: text(path),
                uid: at(uid).map(|row| parse::<Uid>(uid.value(row))).transpose()?,
                hash: at(hash).map(|row| parse::<Hash>(hash.value(row))).transpose()?,
                outcome: text(outcome),
                cause: text(cause),
            });
        }
        Ok(())
    }
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
        assert!(matches!(read(&path), Err(TraceFileError::NotWhole { .. })));
    }

    #[test]
    fn long_traces_are_written_and_read_in_batches() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.arrow");
        let mut writer = TraceWriter::create(&path).unwrap();
        let process = "sp1".into();
        let events =
            (0..70_000).map(|i| Event::new(i, &process, 0, if i % 2 == 0 { Kind::Ready } else { Kind::Usage }));
        events.clone().for_each(|event| writer.record(event));
        writer.finish().unwrap();
        let mut again = Vec::new();
        stream(&path, &mut again).unwrap();
        assert!(again.into_iter().eq(events));
    }

    #[test]
    fn a_trace_that_is_out_of_order_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.arrow");
        let mut writer = TraceWriter::create(&path).unwrap();
        let process = "sp1".into();
        [2, 1].into_iter().for_each(|at| writer.record(Event::new(at, &process, 0, Kind::Ready)));
        writer.finish().unwrap();
        assert!(matches!(read(&path), Err(TraceFileError::NotATrace { .. })));
    }
}
