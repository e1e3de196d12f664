//! The durable store of a storage point.
