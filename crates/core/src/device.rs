//! Devices by name.

use crate::{Error, Result};
use burn::tensor::Device;
use kiln_kernels::host::{keep_freed_memory, on_host};

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

/// The device called `name`. For a CPU device, the process keeps freed memory from then on, see [`keep_freed_memory`].
///
/// # Errors
/// [`Error::Config`] for a name this build does not know.
pub fn by_name(name: &str) -> Result<Device> {
    let device = find(name)?;
    if on_host(&device) {
        keep_freed_memory();
    }
    Ok(device)
}

/// The name of a device; that of one which [`by_name`] does not give is `other`.
pub fn name(device: &Device) -> &'static str {
    let plain = device.clone().inner();
    let is_it = |name: &&&str| find(name).is_ok_and(|known| known == plain);
    NAMES.iter().find(is_it).unwrap_or(&"other")
}

fn find(name: &str) -> Result<Device> {
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
