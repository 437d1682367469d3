//! The CPU backend: an arena and a thread pool per slot.
