//! The configuration file: any text is a configuration or an error that says why not.

use acms_engine::{
    protocol::StoreId,
    runtime::{
        config::{Overrides, StoragePointConfig},
        units::{parse_duration, parse_size},
    },
};
use std::path::Path;

/// One input: the file, or a size and duration.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = (parse_duration(text), parse_size(text));
    match StoragePointConfig::parse(text, Path::new("/etc/acms/acms.toml"), &Overrides::default()) {
        Ok(config) => {
            let protocol = config.protocol(StoreId::default());
            protocol.validate().expect("a configuration that was taken is valid");
            protocol.hash();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
