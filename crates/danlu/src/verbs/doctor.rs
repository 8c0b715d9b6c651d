use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;
use sysinfo::{Disks, System};

use super::Context;
use crate::exit::Outcome;
use crate::{human, views};

/// Look at this machine: what it can do, what is there, and what is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  danlu doctor")]
pub struct Args {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    is: String,
    /// What would be better, when something would.
    advice: Option<String>,
}

/// A training step should have this much room for a small model.
const LITTLE_MEMORY: u64 = 2_000_000_000;
const LITTLE_DISK: u64 = 2_000_000_000;

pub fn run(context: &Context, args: Args) -> Outcome {
    let findings = examine(&context.home);
    if args.json {
        return views::print_json(&findings);
    }
    for finding in &findings {
        println!("{:<18}{}", finding.what, finding.is);
        if let Some(advice) = &finding.advice {
            println!("{:<18}{}", "", views::bold(advice));
        }
    }
    Ok(())
}

fn examine(home: &Path) -> Vec<Finding> {
    let fine = |what, is| Finding { what, is, advice: None };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut findings = vec![
        fine("danlu", env!("CARGO_PKG_VERSION").into()),
        fine("cores", format!("{cores} ({} threads used)", danlu_ops::threads())),
        fine("kernels", danlu_ops::kernels::Isa::current().name().into()),
        where_models_compute(),
        fine("matrix products", format!("{}/s", human::flops(danlu_ops::gemm_rate()))),
        fine("memory bandwidth", format!("{}/s read", human::bytes(bandwidth() as u64))),
    ];
    if let Some(huge) = huge_pages() {
        findings.push(huge);
    }
    findings.extend(memory());
    findings.push(home_folder(home));
    findings.extend(disk(home));
    findings.push(clients());
    findings
}

/// Where models compute, and what else could.
fn where_models_compute() -> Finding {
    let (chosen, found) = (danlu_ops::device(), danlu_ops::accelerators());
    let is = match found.iter().find(|accelerator| accelerator.device == chosen) {
        None => "the CPU".to_string(),
        Some(a) => format!("{}, {} ({})", a.name, a.part, if a.bf16() { "f32, bf16" } else { "f32" }),
    };
    let others: Vec<String> = found.iter().filter(|a| a.device != chosen).map(|a| format!("{} ({})", a.name, a.part)).collect();
    let built = danlu_ops::built_for();
    let advice = if !others.is_empty() {
        Some(format!("--device or DANLU_DEVICE can name {} too.", others.join(", ")))
    } else if built.is_empty() {
        nvidia().then(|| "There is an NVIDIA card; `cargo build --release --features cuda` makes a program that uses it.".into())
    } else if found.is_empty() {
        Some(format!("This program was built for {}, but no such device answers; its driver may be missing.", built.join(", ")))
    } else {
        None
    };
    Finding { what: "device", is, advice }
}

fn nvidia() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
}

fn memory() -> Option<Finding> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    let (total, available) = (system.total_memory(), system.available_memory());
    Some(Finding {
        what: "memory",
        is: format!("{} available of {}", human::bytes(available), human::bytes(total)),
        advice: (available < LITTLE_MEMORY).then(|| "Little is free; plan small models, or close other programs.".into()),
    })
}

/// What is free where the home folder is, or will be.
fn disk(home: &Path) -> Option<Finding> {
    let disks = Disks::new_with_refreshed_list().ok()?;
    let path = home.ancestors().find(|path| path.exists())?.canonicalize().ok()?;
    let here = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())?;
    let free = here.available_space();
    Some(Finding {
        what: "free disk",
        is: human::bytes(free),
        advice: (free < LITTLE_DISK).then(|| "Little is free; checkpoints of a larger model may not fit.".into()),
    })
}

/// Bytes a second that all threads together read from a buffer larger than the caches, the best of a few passes.
fn bandwidth() -> f64 {
    let words = vec![1u64; 32 << 20];
    let threads = danlu_ops::threads().max(1);
    let part = words.len().div_ceil(threads);
    let pass = || {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let sum = |part: &[u64]| part.iter().fold(0u64, |sum, &word| sum.wrapping_add(word));
            let workers: Vec<_> = words.chunks(part).map(|part| scope.spawn(move || sum(part))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
        });
        let seconds = start.elapsed().as_secs_f64();
        std::hint::black_box(sum);
        size_of_val(words.as_slice()) as f64 / seconds
    };
    (0..4).map(|_| pass()).fold(0.0, f64::max)
}

/// Linux says `always [madvise] never`; asking for huge pages helps except with `never`.
fn huge_pages() -> Option<Finding> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let chosen = text.split('[').nth(1)?.split(']').next()?.to_string();
    let advice = (chosen == "never").then(|| {
        "Generation is faster with them: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled".to_string()
    });
    Some(Finding { what: "huge pages", is: chosen, advice })
}

fn home_folder(home: &Path) -> Finding {
    let probe = home.join(format!(".probe-{}", std::process::id()));
    let written = danlu_files::write_atomic_bytes(&probe, b"danlu");
    let _ = fs::remove_file(&probe);
    Finding {
        what: "home folder",
        is: home.display().to_string(),
        advice: written.err().map(|e| format!("It cannot be written ({}); set DANLU_HOME to a folder that can.", e.root_cause())),
    }
}

/// The package clients that catalogue entries are fetched with.
fn clients() -> Finding {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let known: [(&str, &str, &[&str]); 4] = [
        ("pip", "pip", &["--version"]),
        ("npm", "npm", &["--version"]),
        ("apt-get", "apt-get", &["--version"]),
        ("cargo", "cargo", &["--version"]),
    ];
    let found: Vec<&str> =
        known.iter().filter(|(_, program, arguments)| works(program, arguments)).map(|(name, ..)| *name).collect();
    let advice = (!found.contains(&"pip"))
        .then(|| "Without pip the default corpus cannot be fetched; `danlu up` then uses the sources that cargo keeps, and ends with the pretrained model.".into());
    Finding { what: "package clients", is: if found.is_empty() { "none".into() } else { found.join(", ") }, advice }
}
