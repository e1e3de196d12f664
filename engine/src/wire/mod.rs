//! Encoding and framing of what storage points say to each other.
