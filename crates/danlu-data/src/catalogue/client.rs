//! Packages through their ordinary clients.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Downloads a Python package, a wheel or a source archive as `file` says, into `folder`.
///
/// For a source archive pip asks the package's own build script for its metadata, as it does before any installation.
pub(super) fn pip(package: &str, version: &str, file: &str, folder: &Path) -> Result<()> {
    let form = if file.ends_with(".whl") { "--only-binary" } else { "--no-binary" };
    let package = format!("{package}=={version}");
    let rest =
        ["download", "--quiet", "--no-deps", form, ":all:", "--retries", "1", "--timeout", "20", "--disable-pip-version-check"];
    let run = |program: &str, module: &[&str]| {
        let mut command = Command::new(program);
        command.args(module).args(rest).arg("--dest").arg(folder).arg(&package);
        // The package must fit this program, not the Python that happens to run pip.
        command.args(if form == "--only-binary" { &["--ignore-requires-python"][..] } else { &[] });
        run(command, program)
    };
    // A machine may have pip as a module of one Python, as a program, or not at all.
    let mut failed = None;
    for (program, module) in [("python3", &["-m", "pip"][..]), ("pip3", &[]), ("pip", &[])] {
        match run(program, module) {
            Ok(()) => return Ok(()),
            // The reason worth telling is that of a pip that ran.
            Err(error) if failed.is_none() || error.downcast_ref::<std::io::Error>().is_none() => failed = Some(error),
            Err(_) => {}
        }
    }
    Err(failed.context("no pip was found")?)
}

/// Downloads a Node package into `folder`, running none of its scripts.
pub(super) fn npm(package: &str, version: &str, folder: &Path) -> Result<()> {
    let mut command = Command::new("npm");
    command.args(["pack", "--silent", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=60000", "--pack-destination"]);
    command.arg(folder).arg(format!("{package}@{version}"));
    run(command, "npm")
}

/// Downloads a Debian package into `folder` and returns its path.
pub(super) fn apt(package: &str, folder: &Path) -> Result<PathBuf> {
    let mut command = Command::new("apt-get");
    command.args(["download", "-qq", "-o", "Acquire::Retries=1", "-o", "APT::Sandbox::User=root", package]).current_dir(folder);
    run(command, "apt-get").context("when the package list is old, `apt-get update` renews it")?;
    let prefix = format!("{package}_");
    let mut found: Vec<_> =
        std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    // The newest: an older version may be there from before.
    found.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    found.pop().with_context(|| format!("apt-get left no archive of {package} in {}", folder.display()))
}

/// Downloads the files of a repository of the hub that match `globs` into `folder`.
pub(super) fn hf(repository: &str, globs: &[String], folder: &Path) -> Result<()> {
    let mut command = Command::new("hf");
    command.args(["download", repository, "--quiet", "--local-dir"]).arg(folder);
    for glob in globs {
        command.args(["--include", glob]);
    }
    run(command, "hf")
}

fn run(mut command: Command, program: &str) -> Result<()> {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error).context(format!("{program} is not installed")),
        Err(error) => return Err(error).context(format!("{program} cannot be run")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // Clients say what went wrong in a line marked as an error, often followed by advice.
    let error = lines.iter().rev().find(|line| ["ERROR", "npm error", "E:", "Error"].iter().any(|mark| line.starts_with(mark)));
    let reason: String = error.or(lines.last()).unwrap_or(&"it said nothing").chars().take(300).collect();
    bail!("{program} failed ({}): {reason}", output.status)
}
