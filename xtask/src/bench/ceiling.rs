//! What the machine can do at best: matrix products from the caches, and a matrix-vector product that reads memory.

use super::Setup;
use super::measure::{Counts, Meter, Report, rounded};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::Result;
use kiln_kernels::linear::linear;
use kiln_kernels::random::Key;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// How long each rate is tried: the best repeat counts, not the mean.
const TRIAL: Duration = Duration::from_secs(2);

/// The rates of both kinds of products.
///
/// # Errors
/// If the device is unknown.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?;
    let mut meter = Meter::start();
    let mut best = [0.0f64; 3];
    for _ in 0..setup.n_steps {
        let found = [product_gflops(1024, &device), product_gflops(2048, &device), memory_gb_per_s(&device)];
        best = std::array::from_fn(|index| best[index].max(found[index]));
        meter.step(Counts::from([("units", 3.0)]), None);
    }
    let ceiling = json!({ "gflops_1024": best[0], "gflops_2048": best[1], "gemv_gb": best[2] });
    meter.report(setup.workload.name, setup.workload.unit, Map::from_iter([("ceiling".to_owned(), ceiling)]))
}

/// The rates of the products alone, as the report's `ceiling`.
pub fn products(device: &Device) -> Value {
    json!({ "gflops_1024": product_gflops(1024, device), "gflops_2048": product_gflops(2048, device) })
}

/// GFLOP per second of the product of two `n` by `n` matrices.
fn product_gflops(n: usize, device: &Device) -> f64 {
    rounded(2.0 * (n as f64).powi(3) / 1e9 / fastest_seconds([n, n], [n, n], device), 1)
}

/// GB per second at which a vector is multiplied with a matrix of 256 MiB: what generating for one prompt does all the time.
fn memory_gb_per_s(device: &Device) -> f64 {
    let [rows, columns] = [16384, 4096];
    rounded((rows * columns * size_of::<f32>()) as f64 / 1e9 / fastest_seconds([1, columns], [rows, columns], device), 1)
}

/// Time of the fastest of the products `x·Wᵀ` that fit into the trial.
fn fastest_seconds(x: [usize; 2], weight: [usize; 2], device: &Device) -> f64 {
    let (x, weight) = (random(x, 0, device), random(weight, 1, device));
    let end = Instant::now() + TRIAL;
    let mut fastest = f64::INFINITY;
    while Instant::now() < end {
        let start = Instant::now();
        let product = linear(x.clone(), weight.clone(), None);
        // Devices that compute later have to finish.
        device.sync().expect("the device computes");
        fastest = fastest.min(start.elapsed().as_secs_f64());
        drop(product);
    }
    fastest
}

fn random(shape: [usize; 2], stream: u64, device: &Device) -> Tensor<2> {
    let key = Key::new(0).fold(stream);
    let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(|index| key.uniform(index)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
