//! Programs that nobody has read, run with limits.
//!
//! On Linux a program has at most so much processor time, address space, file size and open files (`prlimit`, set before it begins), and,
//! where the system lets users make namespaces, no network and a process table of its own, with which everything it started ends. On every
//! Unix it is a process group of its own that is killed when its time is over or its output too long. What it may read and write of the
//! file system is what the user may: a model that is trained to do harm belongs in a container.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Of the clock, and of the processor.
    pub seconds: f64,
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes that it may write, and that any of its files may have.
    pub output: usize,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    /// By a signal, as when it needs more memory or processor time than it has.
    Killed,
    TimedOut,
    TooMuchOutput,
}

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub end: End,
    /// Up to the limit.
    pub stdout: Vec<u8>,
}

/// Which limits hold on this system, for a person.
///
/// # Errors
/// Where there are none.
pub fn holds() -> Result<&'static str> {
    if cfg!(not(unix)) {
        bail!("programs are run under limits on Unix only");
    }
    Ok(match (cfg!(target_os = "linux"), *NAMESPACES) {
        (true, true) => {
            "time, processor, memory, output and files are limited, there is no network, nothing it starts outlives it"
        }
        (true, false) => {
            "time, processor, memory, output and files are limited; the system gives no namespaces, so it has the user's network"
        }
        (false, _) => "time and output are limited; memory and network are not on this system",
    })
}

/// Whether `unshare` can give a program namespaces of its own here.
static NAMESPACES: LazyLock<bool> = LazyLock::new(|| {
    let mut probe = Command::new(UNSHARE[0]);
    probe.args(&UNSHARE[1..]).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    cfg!(target_os = "linux") && probe.status().is_ok_and(|status| status.success())
});

const UNSHARE: [&str; 8] = ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child"];

/// Waits for its limits to be set, then becomes the program.
const GATE: [&str; 4] = ["sh", "-c", "read -r _ && exec \"$@\" </dev/null", "sh"];

/// How often is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a command in a folder, without the environment of this program but for `PATH`.
///
/// # Errors
/// When it cannot be run or limited at all, which says nothing about the program.
pub fn run(command: &[String], folder: &Path, limits: &Limits) -> Result<Outcome> {
    holds()?;
    let namespaces: &[&str] = if *NAMESPACES { &UNSHARE } else { &[] };
    let mut gated = Command::new(GATE[0]);
    gated.args(&GATE[1..]).args(namespaces).args(command).current_dir(folder).env_clear();
    gated
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
        .env("HOME", folder)
        .env("LANG", "C.UTF-8");
    gated.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut gated, 0);
    let mut child = gated.spawn().context("sh cannot be started, so no program can be run")?;
    let outcome = limited(&mut child, limits);
    // Whatever happened, nothing of it goes on.
    kill(&child);
    let _ = child.wait();
    outcome
}

fn limited(child: &mut Child, limits: &Limits) -> Result<Outcome> {
    restrict(child, limits)?;
    let mut stdout = child.stdout.take().context("a program has no output")?;
    let mut gate = child.stdin.take().context("a program has no input")?;
    gate.write_all(b"\n").context("a program did not wait for its limits")?;
    drop(gate);
    let deadline = Instant::now() + Duration::from_secs_f64(limits.seconds);
    let (full, limit) = (AtomicBool::new(false), limits.output);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = vec![];
            // One more than may be, so that too much is seen; a read that fails ends the output.
            let _ = (&mut stdout).take(limit as u64 + 1).read_to_end(&mut bytes);
            full.store(bytes.len() > limit, Ordering::Relaxed);
            bytes.truncate(limit);
            bytes
        });
        let end = loop {
            if full.load(Ordering::Relaxed) {
                break End::TooMuchOutput;
            }
            if let Some(status) = child.try_wait()? {
                break status.code().map_or(End::Killed, End::Exit);
            }
            if Instant::now() >= deadline {
                break End::TimedOut;
            }
            thread::sleep(LOOK);
        };
        // What the program started may hold its output open.
        kill(child);
        let stdout = reader.join().unwrap_or_default();
        let end = if full.load(Ordering::Relaxed) { End::TooMuchOutput } else { end };
        Ok(Outcome { end, stdout })
    })
}

#[cfg(target_os = "linux")]
fn restrict(child: &Child, limits: &Limits) -> Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_child(child);
    let each = [
        (Resource::Cpu, limits.seconds.ceil() as u64 + 1),
        (Resource::As, limits.memory),
        (Resource::Fsize, limits.output as u64),
        (Resource::Nofile, 64),
        (Resource::Core, 0),
    ];
    for (resource, most) in each {
        let both = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(Some(pid), resource, both).with_context(|| format!("the system does not limit {resource:?}"))?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn restrict(_: &Child, _: &Limits) -> Result<()> {
    Ok(())
}

/// Ends a program and what it started.
#[cfg(unix)]
fn kill(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // It fails when all have ended, which is as well.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

#[cfg(not(unix))]
fn kill(_: &Child) {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { seconds: 1.0, memory: 256 << 20, output: 1 << 16 };

    fn sh(script: &str, limits: &Limits) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        run(&["sh", "-c", script].map(str::to_owned), dir.path(), limits).unwrap()
    }

    #[test]
    fn a_program_runs_and_its_environment_is_not_ours() {
        let outcome = sh("echo hello; cat; exit 3", &LIMITS);
        assert_eq!((outcome.end, &outcome.stdout[..]), (End::Exit(3), &b"hello\n"[..]));
        let seen = String::from_utf8(sh("env", &LIMITS).stdout).unwrap();
        assert!(!seen.contains("CARGO"), "{seen}");
    }

    #[test]
    fn time_and_output_end_it_with_all_it_started() {
        let begun = Instant::now();
        assert_eq!(sh("sleep 30 & sleep 30", &LIMITS).end, End::TimedOut);
        assert_eq!(sh("while :; do echo 0123456789; done", &Limits { seconds: 20.0, ..LIMITS }).end, End::TooMuchOutput);
        // It ends at once though a child keeps its output open.
        assert_eq!(sh("sleep 30 & exit 0", &LIMITS).end, End::Exit(0));
        assert!(begun.elapsed() < Duration::from_secs(15));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_files_are_limited_and_so_is_the_network() {
        let small = Limits { memory: 32 << 20, ..LIMITS };
        let shell = sh("x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo ${#x}", &small);
        assert_ne!(String::from_utf8_lossy(&shell.stdout).trim(), "60000000", "the memory was not limited");
        let file = sh("head -c 1000000 /dev/zero > big; wc -c < big", &LIMITS);
        assert!(String::from_utf8_lossy(&file.stdout).trim().parse::<u64>().unwrap_or(0) <= 1 << 16, "{file:?}");
        if *NAMESPACES {
            let interfaces =
                String::from_utf8(sh("cat /proc/net/dev | tail -n +3 | grep -v lo: | wc -l", &LIMITS).stdout).unwrap();
            assert_eq!(interfaces.trim(), "0", "there is a network");
        }
    }
}
