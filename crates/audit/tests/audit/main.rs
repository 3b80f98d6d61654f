//! Checks of data and fairness against cleanlab and fairlearn, and on real data.

mod golden;
mod real_data;
