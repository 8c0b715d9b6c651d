//! Where this program's models compute, and in what numbers.

use anyhow::{Result, ensure};
use danlu_ops::{Precision, has_bf16, set_precision as set};
use danlu_train::recipe::PrecisionKind;

const VARIABLE: &str = "DANLU_DEVICE";

/// Chooses the device: by the command line, else the environment, else by what is there.
///
/// # Errors
/// When what was asked for is not there.
pub fn choose(asked: Option<&str>) -> Result<()> {
    let from_environment = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    let name = asked.map(str::to_string).or(from_environment).unwrap_or_else(|| "auto".into());
    Ok(danlu_ops::choose_device(&name)?)
}

/// Sets the numbers of activations on the chosen device.
///
/// # Errors
/// When it does not compute in them.
pub fn set_precision(kind: PrecisionKind) -> Result<()> {
    ensure!(
        kind == PrecisionKind::F32 || has_bf16(&danlu_ops::device()),
        "`precision = \"bf16\"` needs a graphics card that computes in it; the chosen device computes in 32-bit floats \
         (`danlu doctor` says what is there). Leave `precision` out, or choose a device with --device"
    );
    set(match kind {
        PrecisionKind::F32 => Precision::F32,
        PrecisionKind::Bf16 => Precision::Bf16,
    });
    Ok(())
}
