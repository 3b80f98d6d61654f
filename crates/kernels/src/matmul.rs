//! Matrix products over host slices.
