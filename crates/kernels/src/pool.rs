//! Pooling over segments.
