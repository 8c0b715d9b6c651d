//! `data add`: from sources to a corpus, in three passes of which none holds the corpus. Every document is read, cleaned and measured;
//! copies are found from the measurements; what stays is written to its split.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use crate::Progress;
use crate::clean::{self, CleanOptions};
use crate::corpus::{self, LAYOUT, Manifest, Split};
use crate::dedup::{self, Clusters, FactFile, FactFinder};
use crate::report::{Dropped, Example, Report};
use crate::source::{BadRecord, Document, Raw, ReadOptions, Reader, Source, resolve};
use crate::split::{self, HeldOut};
use crate::spool::{self, Frame, PartWriter, Spool};

/// What to add and how.
#[derive(Clone, Debug)]
pub struct AddOptions {
    /// Danlu's home folder; the corpus is `data/<name>` in it.
    pub home: PathBuf,
    pub name: String,
    pub sources: Vec<Source>,
    /// The seed of the held-out split.
    pub seed: u64,
    /// The JSON keys or parquet columns that hold the text; none means `text`, else `content`.
    pub text_keys: Vec<String>,
    /// The WHATWG label of the encoding of text that is not Unicode.
    pub encoding: Option<String>,
    pub clean: CleanOptions,
    /// Whether duplicates are dropped. When they are kept, they are still all on one side of the split.
    pub deduplicate: bool,
    pub held_out: HeldOut,
}

impl AddOptions {
    /// The defaults, in danlu's home. What comes from the catalogue was written to be read, so a short text there is not the scrap that
    /// it is in a crawl.
    pub fn new(name: impl Into<String>, sources: Vec<Source>) -> Result<Self> {
        let curated = sources.iter().all(|source| matches!(source, Source::Files { .. }));
        let clean = if curated { CleanOptions { min_words: 20, ..CleanOptions::default() } } else { CleanOptions::default() };
        Ok(Self {
            home: danlu_files::home()?,
            name: name.into(),
            sources,
            seed: 0,
            text_keys: Vec::new(),
            encoding: None,
            clean,
            deduplicate: true,
            held_out: HeldOut::default(),
        })
    }
}

/// A batch is what the reading thread hands over: about this many bytes and at most this many records …
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_RECORDS: usize = 2_048;
/// … in chunks that one thread works on. Both are cut by size only, so that the corpus does not depend on the number of threads.
const CHUNK_BYTES: u64 = 512 << 10;
/// Frames rewritten at a time.
const FRAMES: usize = 16;
/// Held-out lines are gathered to frames of this size, since each chunk has few of them.
const HELD_OUT_FRAME: usize = 4 << 20;
/// Lines of the quarantine file at most; what is beyond is counted.
const QUARANTINE_LINES: u64 = 100_000;

/// Makes (or replaces) a corpus.
///
/// # Errors
/// When a source does not exist, nothing is left after cleaning, or the disk fails. The old corpus of this name is then untouched.
pub fn add(options: &AddOptions, progress: &mut dyn Progress) -> Result<Report> {
    let begun = Instant::now();
    let target = corpus::folder(&options.home, &options.name)?;
    let encoding =
        match &options.encoding {
            Some(label) => {
                let known = encoding_rs::Encoding::for_label(label.as_bytes());
                Some(known.with_context(|| {
                    format!("{label:?} is not the name of an encoding (gbk, big5, shift_jis, windows-1252, …)")
                })?)
            }
            None => None,
        };
    ensure!((0.0..1.0).contains(&options.held_out.fraction), "the held-out fraction must be at least 0 and below 1");
    let _lock = lock(&target)?;
    let inputs = resolve(&options.sources, &options.text_keys)?;
    let mut report = Report {
        name: options.name.clone(),
        sources: options.sources.iter().map(|source| source.name().to_owned()).collect(),
        skipped: inputs.skipped.clone(),
        ..Default::default()
    };
    report.files.documents = inputs.files.len() as u64;
    report.files.bytes = inputs.bytes();

    danlu_files::write_folder_atomic(&target, |folder| {
        let work = folder.join("work");
        fs::create_dir(&work)?;
        let mut quarantine = Quarantine::create(folder)?;
        for bad in inputs.bad {
            quarantine.push(&bad)?;
            report.quarantine(&bad);
        }
        let total = report.files.bytes;
        progress.start("read and clean", Some(total), "bytes");
        let reader = Reader::new(inputs.files);
        read_and_clean(reader, &ReadOptions { encoding }, options, &work, &mut quarantine, &mut report, progress)?;
        progress.at(total);
        quarantine.finish()?;
        report.dropped.sort_by_key(|(step, _)| clean::step_order(step));

        let facts = FactFile::open(&work.join("facts"))?;
        if facts.documents() == 0 {
            bail!("no document is left after cleaning:\n{}", report.text());
        }
        progress.start("find duplicates", Some(2 * u64::from(facts.documents())), "documents");
        let mut clusters = dedup::clusters(&facts, &work, |done| {
            if done % 4_096 == 0 {
                progress.at(done);
            }
        })?;
        progress.at(2 * u64::from(facts.documents()));
        let held = split::held_out(&facts, &mut clusters, &options.held_out, options.seed)?;
        let documents_hash = hash_documents(&facts)?;

        progress.start("write documents", Some(u64::from(facts.documents())), "documents");
        let mut writer = Writer { options, facts: &facts, clusters, held, report: &mut report };
        let (train, held_out) = writer.write(folder, &work.join("documents"), progress)?;
        drop(facts);
        fs::remove_dir_all(&work)?;

        let mut hasher = blake3::Hasher::new();
        for part in train.parts.iter().chain(&held_out.parts) {
            hasher.update(part.blake3.as_bytes());
        }
        let manifest = Manifest {
            layout: LAYOUT,
            name: options.name.clone(),
            hash: hasher.finalize().to_hex().to_string(),
            documents_hash,
            sources: report.sources.clone(),
            seed: options.seed,
            clean: options.clean.clone(),
            deduplicate: options.deduplicate,
            held_out_rule: options.held_out.clone(),
            train,
            held_out,
        };
        fs::write(folder.join("manifest.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(&report)? + "\n")?;
        Ok(fs::write(folder.join("report.txt"), report.text())?)
    })?;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Holds the corpus's lock, so that one `add` at a time writes it, and clears away what an interrupted one left.
fn lock(target: &Path) -> Result<File> {
    let (Some(data), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) else {
        bail!("{} cannot be a corpus folder", target.display());
    };
    fs::create_dir_all(data).with_context(|| format!("cannot create the folder {}", data.display()))?;
    let path = data.join(format!(".{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock().with_context(|| format!("another process is adding to {name:?}; wait for it to end"))?;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let left = entry.file_name();
        let Some(id) = left.to_str().and_then(|left| left.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')) else {
            continue;
        };
        let digits = |rest: Option<&str>| rest.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
        if digits(id.strip_suffix(".old")) && !target.exists() {
            // The crash was between moving the old corpus away and moving the new one in.
            fs::rename(entry.path(), target)?;
        } else if digits(id.strip_suffix(".tmp")) || digits(id.strip_suffix(".old")) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(file)
}

/// What one thread made of a chunk.
struct Chunk {
    frame: Frame,
    facts: Vec<u8>,
    bad: Vec<BadRecord>,
    report: Report,
}

fn read_and_clean(
    reader: Reader,
    read: &ReadOptions,
    options: &AddOptions,
    work: &Path,
    quarantine: &mut Quarantine,
    report: &mut Report,
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut spool = Spool::create(&work.join("documents"))?;
    let path = work.join("facts");
    let mut facts =
        BufWriter::with_capacity(1 << 18, File::create(&path).with_context(|| format!("cannot write {}", path.display()))?);
    let bytes_read = reader.bytes_read();
    let (sender, batches) = mpsc::sync_channel::<Vec<Vec<Raw>>>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for batch in Batches(reader) {
                // The receiver is gone when writing failed, and there is nothing left to read for.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        for batch in batches {
            let chunks: Vec<Result<Chunk>> = batch
                .into_par_iter()
                .map_init(FactFinder::default, |finder, raws| work_on(raws, read, options, finder))
                .collect();
            for chunk in chunks {
                let chunk = chunk?;
                if chunk.frame.documents > 0 {
                    spool.push(&chunk.frame)?;
                    facts.write_all(&chunk.facts)?;
                }
                for bad in &chunk.bad {
                    quarantine.push(bad)?;
                }
                report.merge(chunk.report);
            }
            progress.at(bytes_read.load(Ordering::Relaxed));
        }
        spool.finish()?;
        facts.flush().context("cannot write the temporary facts of documents; is the disk full?")
    })
}

/// Records in chunks in batches.
struct Batches(Reader);

impl Iterator for Batches {
    type Item = Vec<Vec<Raw>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut batch, mut chunk, mut chunk_bytes, mut bytes, mut records) = (Vec::new(), Vec::new(), 0, 0, 0);
        while bytes < BATCH_BYTES && records < BATCH_RECORDS {
            let Some(raw) = self.0.next() else { break };
            bytes += raw.bytes();
            chunk_bytes += raw.bytes();
            records += 1;
            chunk.push(raw);
            if chunk_bytes >= CHUNK_BYTES || chunk.len() >= BATCH_RECORDS / 8 {
                batch.push(std::mem::take(&mut chunk));
                chunk_bytes = 0;
            }
        }
        if !chunk.is_empty() {
            batch.push(chunk);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

fn work_on(raws: Vec<Raw>, read: &ReadOptions, options: &AddOptions, finder: &mut FactFinder) -> Result<Chunk> {
    let (mut lines, mut facts, mut bad, mut report, mut documents) = (Vec::new(), Vec::new(), Vec::new(), Report::default(), 0);
    for raw in raws {
        for document in raw.parse(read) {
            let document = match document {
                Ok(document) => document,
                Err(record) => {
                    report.quarantine(&record);
                    bad.push(record);
                    continue;
                }
            };
            report.read.add(document.text.len() as u64);
            let cleaned = clean::clean(document, &options.clean);
            let document = cleaned.document;
            for (rule, lines, bytes) in cleaned.lines_removed {
                let count = report.lines_removed.entry(rule.to_owned()).or_default();
                count.documents += lines;
                count.bytes += bytes;
            }
            if let Some((step, rule, why)) = cleaned.dropped {
                let text = &document.text;
                report.drop_document(&step, &rule, text.len() as u64, || Example::new(&document.origin, why, text));
                continue;
            }
            finder.append(&document, &mut facts);
            serde_json::to_writer(&mut lines, &document)?;
            lines.push(b'\n');
            documents += 1;
        }
    }
    Ok(Chunk { frame: Frame::new(&lines, documents)?, facts, bad, report })
}

/// A hash over the texts of all documents that passed the rules, in order.
fn hash_documents(facts: &FactFile) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for known in facts.iter() {
        hasher.update(&known?.hash);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The last pass.
struct Writer<'a> {
    options: &'a AddOptions,
    facts: &'a FactFile,
    clusters: Clusters,
    held: Vec<u64>,
    report: &'a mut Report,
}

/// What becomes of a document.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Dropped,
    To(Split),
}

const EXACT: (&str, &str) = ("exact duplicate", "the text of an earlier document (BLAKE3)");
const NEAR: (&str, &str) =
    ("near-duplicate", "at least 0.8 of its shingles in common with an earlier document (MinHash, arXiv 2107.06499)");

impl Writer<'_> {
    fn write(
        &mut self,
        folder: &Path,
        spool: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(corpus::SplitManifest, corpus::SplitManifest)> {
        let fates = self.fates()?;
        let mut examples = self.examples()?;
        let mut train = PartWriter::new(folder, Split::Train)?;
        let mut held_out = PartWriter::new(folder, Split::HeldOut)?;
        let mut held_lines: (Vec<u8>, u64, u64) = Default::default();
        let mut frames = spool::frames(spool)?;
        let mut number = 0u32;
        loop {
            let mut batch = Vec::new();
            for frame in frames.by_ref().take(FRAMES) {
                let frame = frame?;
                batch.push((number, frame));
                number += batch.last().map_or(0, |(_, frame)| frame.documents);
            }
            if batch.is_empty() {
                break;
            }
            let done: Vec<Result<Sorted>> =
                batch.par_iter().map(|(first, frame)| sort(*first, frame, &fates, self.facts, &examples)).collect();
            for sorted in done {
                let sorted = sorted?;
                train.push(&sorted.train, sorted.train_count.0, sorted.train_count.1)?;
                held_lines.0.extend(sorted.held_out);
                held_lines.1 += sorted.held_out_count.0;
                held_lines.2 += sorted.held_out_count.1;
                if held_lines.0.len() >= HELD_OUT_FRAME {
                    let (lines, documents, bytes) = std::mem::take(&mut held_lines);
                    held_out.push(&spool::compress(&lines)?, documents, bytes)?;
                }
                for (document, origin, text) in sorted.seen {
                    examples.insert(document, Some((origin, text)));
                }
            }
            progress.at(u64::from(number));
        }
        held_out.push(&spool::compress(&held_lines.0)?, held_lines.1, held_lines.2)?;
        self.show(&examples);
        let (train, held_out) = (train.finish()?, held_out.finish()?);
        self.report.train = corpus::count(&train);
        self.report.held_out = corpus::count(&held_out);
        Ok((train, held_out))
    }

    /// Decides every document and counts what is dropped.
    fn fates(&mut self) -> Result<Vec<Fate>> {
        let mut fates = Vec::with_capacity(self.facts.documents() as usize);
        let (mut exact, mut near) = (Dropped::default(), Dropped::default());
        (exact.rule, near.rule) = (EXACT.1.to_owned(), NEAR.1.to_owned());
        for (document, known) in (0..).zip(self.facts.iter()) {
            let known = known?;
            if self.options.deduplicate && self.clusters.first(document) != document {
                let dropped = if self.clusters.is_exact_copy(document) { &mut exact } else { &mut near };
                dropped.count.add(u64::from(known.bytes));
                fates.push(Fate::Dropped);
                continue;
            }
            let held = split::is_set(&self.held, document);
            fates.push(Fate::To(if held { Split::HeldOut } else { Split::Train }));
            if known.language != [0; 4] {
                let language = String::from_utf8_lossy(&known.language).trim_end_matches('\0').to_owned();
                self.report.languages.entry(language).or_default().add(u64::from(known.bytes));
            }
        }
        for (step, dropped) in [(EXACT.0, exact), (NEAR.0, near)] {
            if dropped.count.documents > 0 {
                self.report.dropped.push((step.to_owned(), dropped));
            }
        }
        Ok(fates)
    }

    /// The documents whose origin and beginning the report shows: the first few copies, and what they are copies of.
    fn examples(&mut self) -> Result<BTreeMap<u32, Option<(String, String)>>> {
        let mut shown = BTreeMap::new();
        if self.options.deduplicate {
            for exact in [true, false] {
                for document in self.copies(exact) {
                    shown.insert(document, None);
                    shown.insert(self.clusters.first(document), None);
                }
            }
        }
        Ok(shown)
    }

    fn copies(&mut self, exact: bool) -> Vec<u32> {
        let clusters = &mut self.clusters;
        let is_copy = |document: &u32| clusters.first(*document) != *document && clusters.is_exact_copy(*document) == exact;
        (0..self.facts.documents()).filter(is_copy).take(crate::report::EXAMPLES).collect()
    }

    fn show(&mut self, seen: &BTreeMap<u32, Option<(String, String)>>) {
        for (exact, (step, _)) in [(true, EXACT), (false, NEAR)] {
            for document in self.copies(exact) {
                let first = self.clusters.first(document);
                let (Some(Some((origin, text))), Some(Some((other, _)))) = (seen.get(&document), seen.get(&first)) else {
                    continue;
                };
                if let Some((_, dropped)) = self.report.dropped.iter_mut().find(|(name, _)| name == step) {
                    dropped.examples.push(Example::new(origin, format!("copy of {other}"), text));
                }
            }
        }
    }
}

/// The documents of one frame, by fate.
#[derive(Default)]
struct Sorted {
    /// Compressed.
    train: Vec<u8>,
    train_count: (u64, u64),
    held_out: Vec<u8>,
    held_out_count: (u64, u64),
    /// Documents that the report shows.
    seen: Vec<(u32, String, String)>,
}

fn sort(
    first: u32,
    frame: &Frame,
    fates: &[Fate],
    facts: &FactFile,
    shown: &BTreeMap<u32, Option<(String, String)>>,
) -> Result<Sorted> {
    let lines = frame.lines()?;
    let mut sorted = Sorted::default();
    let mut train = Vec::with_capacity(lines.len());
    for (document, line) in (first..).zip(lines.split_inclusive(|b| *b == b'\n')) {
        if shown.contains_key(&document) {
            let parsed: Document = serde_json::from_slice(line)?;
            sorted.seen.push((document, parsed.origin, parsed.text));
        }
        let Some(Fate::To(split)) = fates.get(document as usize) else { continue };
        let (lines, count) = match split {
            Split::Train => (&mut train, &mut sorted.train_count),
            Split::HeldOut => (&mut sorted.held_out, &mut sorted.held_out_count),
        };
        lines.extend_from_slice(line);
        count.0 += 1;
        count.1 += u64::from(facts.bytes(document)?);
    }
    sorted.train = spool::compress(&train)?;
    Ok(sorted)
}

/// `quarantine.jsonl`: every record that could not be read.
struct Quarantine {
    file: BufWriter<File>,
    lines: u64,
}

impl Quarantine {
    fn create(folder: &Path) -> Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(folder.join("quarantine.jsonl"))?), lines: 0 })
    }

    fn push(&mut self, bad: &BadRecord) -> Result<()> {
        self.lines += 1;
        if self.lines <= QUARANTINE_LINES {
            serde_json::to_writer(&mut self.file, bad)?;
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush().context("cannot write quarantine.jsonl; is the disk full?")
    }
}
