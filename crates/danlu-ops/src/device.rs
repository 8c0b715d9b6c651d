//! Which device a program's tensors are on.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use burn::tensor::{Device, FloatDType};

/// The names by which a device can be asked for, besides `cuda:1` and the like.
pub const NAMES: [&str; 7] = ["auto", "cpu", "cuda", "rocm", "metal", "vulkan", "wgpu"];

static CHOSEN: RwLock<Choice> = RwLock::new(Choice::Nothing);

#[derive(Clone)]
enum Choice {
    Nothing,
    /// Drivers take a moment to open: that waits until a device is needed.
    Auto,
    This(Device),
}

/// The device that was chosen, without autodiff; the CPU when none was.
pub fn device() -> Device {
    let choice = CHOSEN.read().unwrap_or_else(PoisonError::into_inner).clone();
    match choice {
        Choice::Nothing => Device::flex(),
        Choice::This(device) => device,
        Choice::Auto => {
            let device = best();
            *CHOSEN.write().unwrap_or_else(PoisonError::into_inner) = Choice::This(device.clone());
            device
        }
    }
}

fn best() -> Device {
    accelerators().into_iter().next().map_or_else(Device::flex, |found| found.device)
}

/// Makes a device that is there the one that [`device`] gives: "cpu", an accelerator's kind ("cuda"), one of several ("cuda:1"), or "auto",
/// which is the first accelerator that this program was built for and finds, else the CPU.
///
/// # Errors
/// When the name is unknown, or names what this build or this machine does not have.
pub fn choose_device(name: &str) -> Result<(), NoDevice> {
    let choice = if name == "auto" { Choice::Auto } else { Choice::This(find(name)?) };
    *CHOSEN.write().unwrap_or_else(PoisonError::into_inner) = choice;
    Ok(())
}

/// The chosen device's name, by which it can be asked for again.
pub fn device_name() -> String {
    let chosen = device();
    accelerators().into_iter().find(|found| found.device == chosen).map_or_else(|| "cpu".into(), |found| found.name)
}

/// A graphics card, or another device that is not the CPU.
#[derive(Clone, Debug)]
pub struct Accelerator {
    /// What [`choose_device`] takes: "cuda:0".
    pub name: String,
    /// What its maker calls it.
    pub part: String,
    pub device: Device,
}

impl Accelerator {
    /// Whether it computes in bfloat16.
    pub fn bf16(&self) -> bool {
        has_bf16(&self.device)
    }
}

/// Whether a device computes in bfloat16. The CPU form does not.
pub fn has_bf16(device: &Device) -> bool {
    *device != Device::flex() && device.supports_dtype(FloatDType::BF16)
}

/// The kinds of accelerators that this program was built for, the one to prefer first.
pub fn built_for() -> Vec<&'static str> {
    kinds().into_iter().map(|(kind, _)| kind).collect()
}

/// The accelerators that this program was built for and that are there.
pub fn accelerators() -> Vec<Accelerator> {
    kinds().into_iter().flat_map(|(kind, devices)| of_kind(kind, devices)).collect()
}

/// Why there is no such device, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoDevice(String);

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoDevice {}

fn find(name: &str) -> Result<Device, NoDevice> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, index.parse().map_err(|_| NoDevice(format!("{name:?}: {index:?} is no number")))?),
        None => (name, 0),
    };
    if !NAMES.contains(&kind) {
        return Err(NoDevice(format!("there is no device {name:?}; known are {}", NAMES.join(", "))));
    }
    match kind {
        "cpu" => return Ok(Device::flex()),
        "auto" => return Ok(best()),
        _ => {}
    }
    let Some((kind, devices)) = kinds().into_iter().find(|(known, _)| *known == kind) else {
        return Err(NoDevice(format!(
            "this program was built without {kind}; build it with `cargo build --release --features {kind}`, or use --device cpu"
        )));
    };
    let mut all = of_kind(kind, devices);
    match all.len() {
        0 => Err(NoDevice(format!("no {kind} device answers: {}; --device cpu works everywhere", missing(kind)))),
        count if index >= count => {
            Err(NoDevice(format!("{name:?} asks for more than the {count} {kind} devices that are there")))
        }
        _ => Ok(all.swap_remove(index).device),
    }
}

fn missing(kind: &str) -> &'static str {
    match kind {
        "cuda" => "the NVIDIA driver (libcuda) is not installed, or it sees no card (`nvidia-smi` should list one)",
        "rocm" => "the ROCm runtime (libamdhip64) is not installed, or it sees no card (`rocminfo` should list one)",
        "vulkan" => "no Vulkan driver is installed, or it sees no card (`vulkaninfo --summary` should list one)",
        _ => "no driver is installed, or it sees no card",
    }
}

/// Lists a kind's devices.
type List = fn() -> Vec<Device>;

fn kinds() -> Vec<(&'static str, List)> {
    #[allow(unused_mut, reason = "builds for the CPU alone have none")]
    let mut kinds: Vec<(&'static str, List)> = vec![];
    #[cfg(feature = "cuda")]
    kinds.push(("cuda", || Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec()));
    #[cfg(feature = "rocm")]
    kinds.push(("rocm", || Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec()));
    #[cfg(feature = "metal")]
    kinds.push(("metal", || Device::enumerate(burn::tensor::DeviceType::Metal).into_vec()));
    #[cfg(feature = "vulkan")]
    kinds.push(("vulkan", || Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec()));
    #[cfg(feature = "wgpu")]
    kinds.push(("wgpu", || Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec()));
    kinds
}

/// Drivers that compute on the CPU after all are left out: the CPU form does that better.
#[cfg(accelerated)]
fn of_kind(kind: &str, list: List) -> Vec<Accelerator> {
    let cards = list().into_iter().filter_map(|device| Some((device.identity()?, device)));
    let cards = cards.filter(|(identity, _)| identity.physical.is_some()).enumerate();
    cards.map(|(i, (identity, device))| Accelerator { name: format!("{kind}:{i}"), part: identity.name, device }).collect()
}

#[cfg(not(accelerated))]
fn of_kind(_: &str, _: List) -> Vec<Accelerator> {
    vec![]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_said_with_a_way_out() {
        for (name, part) in [("gpu", "known are auto"), ("cuda:x", "no number"), ("rocm", "--device cpu")] {
            let message = find(name).expect_err("there is no such device").to_string();
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(find("cpu"), Ok(Device::flex()));
        assert!(!has_bf16(&Device::flex()));
        if accelerators().is_empty() {
            assert_eq!(find("auto"), Ok(Device::flex()));
        }
    }
}
