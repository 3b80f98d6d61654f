//! Head and cross-entropy.
