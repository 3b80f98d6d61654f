//! Devices by name.

use crate::{Error, Result};
use burn::tensor::Device;

/// The names `--device` takes in this build.
pub const NAMES: &[&str] = &[
    "flex",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// Devices that a Cargo feature of the same name brings.
const OPTIONAL: [&str; 3] = ["ndarray", "cuda", "wgpu"];

/// The device called `name`.
///
/// # Errors
/// [`Error::Config`] for a name this build does not know.
pub fn by_name(name: &str) -> Result<Device> {
    match name {
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        _ if OPTIONAL.contains(&name) => {
            let message = format!("{name} is not in this build; run `cargo run --package xtask --features {name} -- ...`");
            Err(Error::config("--device", message))
        }
        _ => Err(Error::config("--device", format!("unknown device {name:?}; this build knows {}", NAMES.join(", ")))),
    }
}
