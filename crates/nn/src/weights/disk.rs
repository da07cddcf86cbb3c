//! Files of our own about weight files: how they are named, replaced, and told from what they were.

use std::{fs::Metadata, io::Write, path::Path, time::UNIX_EPOCH};

/// A name for a file about what `bytes` name.
pub(super) fn name_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

/// Writes beside `path` and renames, so that nobody reads half of it.
pub(super) fn replace(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = fs_err::File::create(&partial).and_then(|mut file| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        drop(file);
        fs_err::rename(&partial, path)
    });
    if written.is_err() {
        let _ = fs_err::remove_file(&partial);
    }
    written
}

/// When a file was last written to, in nanoseconds since 1970; 0 where the system does not tell.
pub(super) fn modified_nanos(metadata: &Metadata) -> u128 {
    metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |time| time.as_nanos())
}
