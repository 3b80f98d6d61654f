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
        "ndarray" | "cuda" | "wgpu" => Err(Error::config(
            "--device",
            format!("{name} is not in this build; build with `--features {name}` or use {}", NAMES.join(", ")),
        )),
        _ => Err(Error::config("--device", format!("unknown device {name:?}; this build knows {}", NAMES.join(", ")))),
    }
}
