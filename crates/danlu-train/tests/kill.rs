//! Killed at random instants and started again, a run ends with the weights of one that was never disturbed, byte for byte.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::{Toy, plan, run};
use danlu_train::checkpoint;

const FOLDER: &str = "DANLU_TEST_KILL_FOLDER";
const SETTINGS: [&str; 4] = ["budget.steps=150", "checkpoint.every=2", "checkpoint.keep=3", "eval.every=50"];

/// Not a test of its own: the process that the tests below kill.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let plan = plan(&SETTINGS);
    run(Path::new(&folder), &plan, &Toy::new(&plan), &AtomicBool::new(false), |_| ()).unwrap();
}

/// Runs the child in `folder`, killed after `life` if it still lives; whether it ended by itself.
fn attempt(folder: &Path, life: Option<Duration>) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    if let Some(life) = life {
        std::thread::sleep(life);
        // On Unix this is SIGKILL: nothing in the child can run after it.
        child.kill().unwrap();
        return child.wait().unwrap().success();
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "the undisturbed child failed");
    true
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
    let begun = std::time::Instant::now();
    assert!(attempt(&straight, None));
    let whole = begun.elapsed();
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut done = 0;
    // Each life is a part of what an undisturbed run takes, so that most lives end in the middle.
    for _ in 0..kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let life = whole.mul_f64(0.15 + 2.0 * (random % 1000) as f64 / 1000.0 / f64::from(kills));
        done += u32::from(!attempt(&killed, Some(life)));
    }
    attempt(&killed, None);
    eprintln!("killed {done} of {kills} times");
    assert!(done >= kills / 2, "only {done} of {kills} were killed before they ended; give the child more steps");
    let (straight, killed) = (last(&straight), last(&killed));
    assert_eq!(straight.0, killed.0, "steps");
    assert!(straight.1 == killed.1, "the weights differ");
    assert!(straight.2 == killed.2, "the optimizer's state differs");
}

#[test]
fn a_run_survives_kills() {
    survives(4);
}

#[test]
#[ignore = "takes a minute or two"]
fn a_run_survives_many_kills() {
    survives(25);
}
