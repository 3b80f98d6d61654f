//! Linear layers, with an optional low-rank adapter.
