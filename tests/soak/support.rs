//! Helpers of several parts.

use std::path::{Path, PathBuf};

use rand::{SeedableRng, rngs::ChaCha8Rng};

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A number from the environment.
pub fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

/// The random numbers of a round or a case.
pub fn random(seed: u64, name: &str, number: u64) -> ChaCha8Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    for (place, byte) in name.bytes().enumerate() {
        bytes[16 + place % 16] = bytes[16 + place % 16].rotate_left(3) ^ byte;
    }
    ChaCha8Rng::from_seed(bytes)
}

/// A runtime for async code.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
