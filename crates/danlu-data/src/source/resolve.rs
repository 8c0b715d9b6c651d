//! From what a user names to a list of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use ignore::WalkBuilder;

use super::{BadRecord, Format, InputFile};

/// What a corpus is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, a folder (every file of a known kind in it by its extension, but `.json`) or a glob (`texts/**/*.md`).
    Path(String),
    /// The sources in the local cargo registry: Rust code, its doc comments, and the READMEs of crates.
    Crates,
    /// Files that something else found, such as a catalogue entry, under the name the user knows.
    Files { name: String, files: Vec<PathBuf>, text_keys: Vec<String> },
}

impl Source {
    /// The source as the user named it.
    pub fn name(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Crates => "crates",
            Self::Files { name, .. } => name,
        }
    }
}

/// The files of all sources.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Sorted within each source, so that the order is the same on every run.
    pub files: Vec<InputFile>,
    /// Files passed over because of their extension, by extension.
    pub skipped: BTreeMap<String, u64>,
    /// What could not be listed.
    pub bad: Vec<BadRecord>,
}

const TEXT: &[&str] = &["txt", "text", "md", "markdown", "rst", "adoc", "tex"];
const HTML: &[&str] = &["html", "htm", "xhtml"];
const CODE: &[&str] = &[
    "rs", "py", "pyi", "c", "h", "cc", "cpp", "cxx", "hpp", "hh", "cu", "go", "java", "kt", "scala", "js", "mjs", "cjs", "ts",
    "tsx", "jsx", "rb", "pl", "pm", "php", "cs", "swift", "lua", "r", "jl", "hs", "ml", "erl", "ex", "exs", "clj", "sh", "bash",
    "sql", "vim", "el", "tcl", "zig", "nim", "dart", "f90", "s", "cmake", "toml",
];

/// The format that a name promises. A packed file is what its inner name says.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "jsonl" | "ndjson" => Format::JsonLines,
        "json" => Format::Json,
        "parquet" => Format::Parquet,
        _ if TEXT.contains(&extension) => Format::Text,
        _ if HTML.contains(&extension) => Format::Html,
        _ if CODE.contains(&extension) => Format::Code,
        _ => return None,
    })
}

/// Lists the files of `sources`. `text_keys` are the JSON keys or parquet columns of sources that do not bring their own.
///
/// # Errors
/// When a source does not exist or has no file to read.
pub fn resolve(sources: &[Source], text_keys: &[String]) -> Result<Inputs> {
    let mut inputs = Inputs::default();
    let keys: Arc<[String]> = text_keys.into();
    for source in sources {
        let before = inputs.files.len();
        match source {
            Source::Path(path) => resolve_path(path, &keys, &mut inputs)?,
            Source::Crates => resolve_crates(&mut inputs)?,
            Source::Files { files, text_keys, .. } => {
                let keys: Arc<[String]> = text_keys.as_slice().into();
                for path in files {
                    inputs.named(path, &keys)?;
                }
            }
        }
        if inputs.files.len() == before {
            let kinds = "txt, md, html, jsonl, json, parquet (also .gz, .zst) and source code";
            bail!("{} has no file of a kind this reads: {kinds}; a file named directly is read as text", source.name());
        }
    }
    Ok(inputs)
}

fn resolve_path(path: &str, keys: &Arc<[String]>, inputs: &mut Inputs) -> Result<()> {
    let found = Path::new(path);
    if found.is_dir() {
        // A JSON file among others is most often a setting and not a list of texts, so it is read only when it is named.
        return inputs.walk(found, |file| format_of(file).filter(|format| *format != Format::Json), keys);
    }
    if found.exists() {
        return inputs.named(found, keys);
    }
    if !path.contains(['*', '?', '[', '{']) {
        bail!("{path} does not exist; a source is a file, a folder, a glob in quotes, `crates`, or a name from the catalogue");
    }
    let glob = glob(path)?;
    // The folder to walk is what stands before the first component with a pattern.
    let base: PathBuf =
        found.components().take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])).collect();
    let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    if !base.is_dir() {
        bail!("{path} matches nothing: there is no folder {}", base.display());
    }
    // A glob that names files decides what is read: a file of an unknown kind is text.
    let of = |file: &Path| {
        let name = file.strip_prefix("./").unwrap_or(file);
        glob.is_match(name).then(|| format_of(file).unwrap_or(Format::Text))
    };
    inputs.walk(&base, of, keys)?;
    inputs.skipped.clear();
    Ok(())
}

fn glob(pattern: &str) -> Result<GlobMatcher> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob.with_context(|| format!("{pattern} is neither a file that exists nor a glob"))?.compile_matcher())
}

fn resolve_crates(inputs: &mut Inputs) -> Result<()> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registry = cargo.context("no home folder is known; set CARGO_HOME")?.join("registry").join("src");
    if !registry.is_dir() {
        bail!("there are no crate sources in {}; build any Rust program with dependencies first", registry.display());
    }
    let keys: Arc<[String]> = Arc::new([]);
    let of = |file: &Path| match file.extension()?.to_str()? {
        "rs" => Some(Format::Rust),
        "md" => Some(Format::Text),
        _ => None,
    };
    let first = inputs.files.len();
    let skipped = std::mem::take(&mut inputs.skipped);
    inputs.walk(&registry, of, &keys)?;
    inputs.skipped = skipped;
    for file in &mut inputs.files[first..] {
        // Below the registry's own folder, whose name differs between machines: `serde-1.0.0/src/lib.rs`.
        let inside = file.path.strip_prefix(&registry).unwrap_or(&file.path);
        file.label = inside.components().skip(1).collect::<PathBuf>().display().to_string();
    }
    Ok(())
}

impl Inputs {
    /// Total size of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// A file the user named: read as text when its name promises nothing.
    fn named(&mut self, path: &Path, keys: &Arc<[String]>) -> Result<()> {
        let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        self.push(path.to_path_buf(), format_of(path).unwrap_or(Format::Text), size, keys);
        Ok(())
    }

    fn push(&mut self, path: PathBuf, format: Format, bytes: u64, keys: &Arc<[String]>) {
        let label = path.display().to_string();
        self.files.push(InputFile { path, label, format, bytes, text_keys: Arc::clone(keys) });
    }

    /// Every file below `folder` that `format` wants, by path. Hidden files and links are passed over: a link would read a file twice
    /// or never end.
    fn walk(&mut self, folder: &Path, format: impl Fn(&Path) -> Option<Format>, keys: &Arc<[String]>) -> Result<()> {
        let mut walk = WalkBuilder::new(folder);
        walk.standard_filters(false).hidden(true).follow_links(false).sort_by_file_path(Path::cmp);
        for entry in walk.build() {
            let entry = match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => entry,
                Ok(_) => continue,
                Err(error) => {
                    let origin = folder.display().to_string();
                    self.bad.push(BadRecord { origin, reason: format!("cannot be listed: {error}"), bytes: 0 });
                    continue;
                }
            };
            let path = entry.path();
            match format(path) {
                Some(format) => {
                    let size = entry.metadata().map_or(0, |metadata| metadata.len());
                    self.push(path.to_path_buf(), format, size, keys);
                }
                None => {
                    let extension = path.extension().map_or("no extension".to_owned(), |e| format!(".{}", e.to_string_lossy()));
                    *self.skipped.entry(extension).or_default() += 1;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_globs_and_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.md", "a.txt", "c.jsonl.gz", "d.bin", "package.json", "sub/e.py", "sub/f.md", ".hidden/g.md"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        let check = |pattern: &str, expected: &[(&str, Format)]| {
            let source = Source::Path(dir.path().join(pattern).display().to_string());
            let inputs = resolve(&[source], &[]).unwrap();
            let found: Vec<_> =
                inputs.files.iter().map(|f| (f.path.strip_prefix(dir.path()).unwrap().to_str().unwrap(), f.format)).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        let all = [
            ("a.txt", Format::Text),
            ("b.md", Format::Text),
            ("c.jsonl.gz", Format::JsonLines),
            ("sub/e.py", Format::Code),
            ("sub/f.md", Format::Text),
        ];
        check("", &all);
        check("*.md", &all[1..2]);
        check("**/*.md", &[all[1], all[4]]);
        check("d.*", &[("d.bin", Format::Text)]);
        check("*.json", &[("package.json", Format::Json)]);
        check("d.bin", &[("d.bin", Format::Text)]);
        let skipped = resolve(&[Source::Path(dir.path().display().to_string())], &[]).unwrap().skipped;
        assert_eq!(skipped, BTreeMap::from([(".bin".to_owned(), 1), (".json".to_owned(), 1)]));
        for wrong in ["nothing", "*.none", "none/*.md"] {
            assert!(resolve(&[Source::Path(dir.path().join(wrong).display().to_string())], &[]).is_err(), "{wrong}");
        }
    }
}
