//! A short name for the contents of a checkpoint folder, for indexes to compare.
//!
//! Hashing gigabytes at every start would cost seconds, so small files are hashed whole and of a weight
//! file its length, its beginning (the header lies there) and evenly spread samples. Two checkpoints that
//! were trained differently differ in nearly every value; a single changed value may go unnoticed.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use crate::{Error, Result};

/// Files up to this size are hashed whole.
const WHOLE_BYTES: u64 = 8 << 20;
/// Samples of a larger file.
const SAMPLES: u64 = 64;
/// Bytes of a sample.
const SAMPLE_BYTES: u64 = 16 << 10;

/// Hexadecimal, 32 characters.
pub(super) fn fingerprint(folder: &Path) -> Result<String> {
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let kind = Path::new(&name).extension().and_then(|end| end.to_str());
        if matches!(kind, Some("json" | "jinja" | "safetensors")) && entry.path().is_file() {
            names.push(entry.path());
        }
    }
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for path in names {
        hash_file(&path, &mut hasher).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

fn hash_file(path: &Path, hasher: &mut blake3::Hasher) -> std::io::Result<()> {
    let mut file = fs_err::File::open(path)?;
    let length = file.metadata()?.len();
    hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hasher.update(&length.to_le_bytes());
    if length <= WHOLE_BYTES {
        let mut bytes = Vec::new();
        file.take(WHOLE_BYTES).read_to_end(&mut bytes)?;
        hasher.update(&bytes);
        return Ok(());
    }
    let mut sample = vec![0; SAMPLE_BYTES as usize];
    for index in 0..SAMPLES {
        file.seek(SeekFrom::Start(
            (length - SAMPLE_BYTES) / (SAMPLES - 1) * index,
        ))?;
        file.read_exact(&mut sample)?;
        hasher.update(&sample);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_decide_and_the_place_does_not() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut large = vec![7_u8; 9 << 20];
        for folder in [&one, &two] {
            fs_err::write(folder.path().join("config.json"), "{}").unwrap();
            fs_err::write(folder.path().join("model.safetensors"), &large).unwrap();
        }
        fs_err::write(two.path().join("notes.txt"), "not a part").unwrap();
        let first = fingerprint(one.path()).unwrap();
        assert_eq!(first, fingerprint(two.path()).unwrap());
        large.iter_mut().step_by(4096).for_each(|byte| *byte = 8);
        fs_err::write(two.path().join("model.safetensors"), &large).unwrap();
        assert_ne!(first, fingerprint(two.path()).unwrap());
    }
}
