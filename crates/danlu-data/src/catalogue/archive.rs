//! The files inside a package, one at a time and in bounded memory. Nothing is unpacked to a path an archive names.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The largest file taken from a package, and the most bytes of all its files together.
const MAX_FILE: u64 = 1 << 30;
const MAX_TOTAL: u64 = 4 << 30;

/// What to do with a file: its path in the package and its contents.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&str, &mut dyn Read) -> Result<()>;

/// Visits the files of `package` (a folder, wheel, zip, tar.gz, tgz or deb) whose paths match `globs`, or those of an archive inside it.
///
/// # Errors
/// When the package is damaged, a file is larger than a bound, or none matches.
pub(super) fn visit(package: &Path, globs: &[String], visit: Visit) -> Result<()> {
    let (inner, globs): (Vec<String>, Vec<String>) = globs.iter().cloned().partition(|glob| glob.contains('!'));
    if inner.is_empty() {
        return visit_outer(package, &globs, visit);
    }
    let mut found = !globs.is_empty() && visit_outer(package, &globs, visit).is_ok();
    let pairs: Vec<(&str, &str)> = inner.iter().filter_map(|glob| glob.split_once('!')).collect();
    let mut archives: Vec<&str> = pairs.iter().map(|(archive, _)| *archive).collect();
    archives.dedup();
    for archive in archives {
        let copied = tempfile::Builder::new().suffix(archive.rsplit('/').next().unwrap_or(archive)).tempfile()?;
        let unpacked = visit_outer(package, &[archive.to_owned()], &mut |_, contents| {
            std::io::copy(contents, &mut copied.as_file()).map(drop).context("cannot copy an archive out of its package")
        });
        // The other place of the same entry has its files without an archive around them.
        if unpacked.is_ok() {
            let wanted: Vec<String> = pairs.iter().filter(|pair| pair.0 == archive).map(|pair| pair.1.to_owned()).collect();
            visit_outer(copied.path(), &wanted, visit)?;
            found = true;
        }
    }
    if !found {
        bail!("{} has no file {}", package.display(), [globs, inner].concat().join(" or "));
    }
    Ok(())
}

fn visit_outer(package: &Path, globs: &[String], visit: Visit) -> Result<()> {
    let mut wanted = Wanted { globs: globset(globs)?, found: 0, left: MAX_TOTAL, visit };
    let name = package.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let visited = if package.is_dir() {
        folder(package, globs, &mut wanted)
    } else if name.ends_with(".whl") || name.ends_with(".zip") {
        zip(package, &mut wanted)
    } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        tar(GzDecoder::new(BufReader::new(File::open(package)?)), &mut wanted)
    } else if name.ends_with(".deb") {
        deb(package, &mut wanted)
    } else {
        bail!("{} is not an archive of a known kind", package.display())
    };
    visited.with_context(|| format!("in {}", package.display()))?;
    if wanted.found == 0 {
        bail!("{} has no file {}", package.display(), globs.join(" or "));
    }
    Ok(())
}

struct Wanted<'a> {
    globs: GlobSet,
    found: usize,
    left: u64,
    visit: Visit<'a>,
}

impl Wanted<'_> {
    fn file(&mut self, name: &str, contents: &mut dyn Read) -> Result<()> {
        let name = name.strip_prefix("./").unwrap_or(name);
        // A name that could leave a folder is never one we ask for, whatever the globs say.
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) || !self.globs.is_match(name) {
            return Ok(());
        }
        let limit = MAX_FILE.min(self.left);
        let mut bounded = contents.take(limit);
        (self.visit)(name, &mut bounded).with_context(|| format!("cannot read {name}"))?;
        std::io::copy(&mut bounded, &mut std::io::sink()).with_context(|| format!("cannot read {name}"))?;
        if bounded.limit() == 0 {
            bail!("{name} has more than {limit} bytes, the most that are unpacked");
        }
        self.left -= limit - bounded.limit();
        self.found += 1;
        Ok(())
    }
}

fn globset(globs: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(GlobBuilder::new(glob).literal_separator(true).build()?);
    }
    Ok(set.build()?)
}

fn zip(package: &Path, wanted: &mut Wanted) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(File::open(package)?))?;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index)?;
        if file.is_file() {
            let name = file.name()?.into_owned();
            wanted.file(&name, &mut file)?;
        }
    }
    Ok(())
}

fn tar(reader: impl Read, wanted: &mut Wanted) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            wanted.file(&name, &mut entry)?;
        }
    }
    Ok(())
}

/// A Debian package's files, as the tar archive that `dpkg-deb` makes of them.
fn deb(package: &Path, wanted: &mut Wanted) -> Result<()> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("dpkg-deb cannot be run")?;
    let read = match child.stdout.take() {
        Some(mut out) => tar(&mut out, wanted).and_then(|()| Ok(std::io::copy(&mut out, &mut std::io::sink()).map(drop)?)),
        None => Ok(()),
    };
    // After a failed read the pipe is closed, so the child ends in any case.
    let output = child.wait_with_output()?;
    if !output.status.success() && read.is_ok() {
        bail!("dpkg-deb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    read
}

/// Files of a folder, looking only below what stands before the first wildcard: the folder may be the root of a machine.
fn folder(root: &Path, globs: &[String], wanted: &mut Wanted) -> Result<()> {
    for glob in globs {
        let fixed: std::path::PathBuf = Path::new(glob)
            .components()
            .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
            .collect();
        let mut walk = ignore::WalkBuilder::new(root.join(fixed));
        walk.standard_filters(false).follow_links(false).sort_by_file_path(Path::cmp);
        // A place that is not there has no file; the caller says that none was found.
        for entry in walk.build().filter_map(Result::ok).filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
            wanted.file(&name, &mut File::open(path).with_context(|| format!("cannot open {}", path.display()))?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn found(package: &Path, globs: &[&str]) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        visit(package, &globs, &mut |name, contents| {
            let mut text = String::new();
            contents.read_to_string(&mut text)?;
            found.push((name.to_owned(), text));
            Ok(())
        })?;
        found.sort();
        Ok(found)
    }

    #[test]
    fn archives_of_all_kinds_give_their_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("a/one.txt", "1"), ("a/b/two.txt", "2"), ("a/three.bin", "3"), ("../out.txt", "4"), ("/etc/out.txt", "5")];
        let wheel = dir.path().join("x.whl");
        let mut archive = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for (name, text) in files {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        let tgz = dir.path().join("x.tar.gz");
        let mut archive =
            tar::Builder::new(flate2::write::GzEncoder::new(File::create(&tgz).unwrap(), flate2::Compression::fast()));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            // The writer refuses such names, so they are put into the header by hand.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(1);
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
        let plain = dir.path().join("plain");
        for (name, text) in &files[..3] {
            let path = plain.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let all = [("a/b/two.txt".to_owned(), "2".to_owned()), ("a/one.txt".to_owned(), "1".to_owned())];
        for package in [&wheel, &tgz, &plain] {
            assert_eq!(found(package, &["**/*.txt"]).unwrap(), all, "{}", package.display());
            assert_eq!(found(package, &["a/*.txt"]).unwrap(), all[1..], "{}", package.display());
            assert!(format!("{:#}", found(package, &["none/*"]).unwrap_err()).contains("no file none/*"));
        }
        for package in [&wheel, &tgz] {
            let bytes = std::fs::read(package).unwrap();
            std::fs::write(package, &bytes[..bytes.len() / 2]).unwrap();
            assert!(found(package, &["**/*.txt"]).is_err(), "half of {}", package.display());
        }
    }
}
