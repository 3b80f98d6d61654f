//! Attention over segments.
