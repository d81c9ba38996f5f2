//! Configuration files in any state.

use std::path::Path;

use super::layers::Layers;

/// One file.
pub fn configuration(data: &[u8]) {
    let mut layers = Layers::default();
    layers.add(Path::new("/etc/myelin/config.toml"), data);
    let _ = layers.build();
}
