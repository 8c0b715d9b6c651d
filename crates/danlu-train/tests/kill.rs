//! Killed at random instants and started again, a run ends with the weights of one that was never disturbed, byte for byte.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Toy, plan, run};
use danlu_train::checkpoint;

const FOLDER: &str = "DANLU_TEST_KILL_FOLDER";
const STEPS: u64 = 150;
const SETTINGS: [&str; 4] = ["budget.steps=150", "checkpoint.every=2", "checkpoint.keep=3", "eval.every=50"];

/// Not a test of its own: the process that the test below kills.
#[test]
#[ignore = "started by the other test"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let plan = plan(&SETTINGS);
    run(Path::new(&folder), &plan, &Toy::new(&plan), &AtomicBool::new(false), |_| ()).unwrap();
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The newest step that has a checkpoint, by its folder's name; whether it is intact is not asked.
fn reached(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder.join("checkpoints")) else { return 0 };
    let steps = entries.flatten().filter_map(|e| e.file_name().to_str()?.strip_prefix("step-")?.parse().ok());
    steps.max().unwrap_or(0)
}

/// Runs the child until it has passed `step` and for `more` after that, then kills it; whether it was still alive.
fn kill_after(folder: &Path, step: u64, more: Duration) -> bool {
    let mut child = start(folder);
    while reached(folder) < step && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(more);
    // On Unix this is SIGKILL: nothing in the child can run after it.
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

fn last(folder: &Path) -> (u64, Vec<u8>, Vec<u8>) {
    let found = checkpoint::latest(&folder.join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap();
    let read = |name: &str| fs::read(found.folder.join(name)).unwrap();
    (found.state.step, read("model.safetensors"), read("optimizer.safetensors"))
}

fn survives(kills: u32) {
    let dir = tempfile::tempdir().unwrap();
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    fs::create_dir_all(&straight).unwrap();
    fs::create_dir_all(&killed).unwrap();
    assert!(start(&straight).wait().unwrap().success(), "the undisturbed child failed");
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut done = 0;
    // Lives end at steps spread over the run, each at a random instant after its step: in a step, or while a checkpoint is written.
    for life in 0..kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let step = STEPS * u64::from(life + 1) / u64::from(kills + 2);
        done += u32::from(kill_after(&killed, step, Duration::from_micros(random % 20_000)));
    }
    assert!(start(&killed).wait().unwrap().success(), "the last child failed");
    eprintln!("killed {done} of {kills} times");
    assert!(done > kills / 2, "only {done} of {kills} were killed before they ended; give the child more steps");
    let (straight, killed) = (last(&straight), last(&killed));
    assert_eq!(straight.0, killed.0, "steps");
    assert!(straight.1 == killed.1, "the weights differ");
    assert!(straight.2 == killed.2, "the optimizer's state differs");
}

#[test]
fn a_run_survives_kills() {
    survives(25);
}
