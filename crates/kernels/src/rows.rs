//! Writing rows in place.
