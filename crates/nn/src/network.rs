//! The specification of a network, checked.
