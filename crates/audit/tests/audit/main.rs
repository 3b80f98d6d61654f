//! Checks of data and fairness against cleanlab and fairlearn, benchmarks against PyTorch, and all on real data.

mod benchmarks;
mod golden;
mod real_data;
