//! One safetensors file, read by positioned reads.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use half::{bf16, f16};

use super::header::{self, ElementType, Entry};
use crate::{Error, Result};

/// Bytes converted at a time: small beside any matrix, large beside a system call.
const CHUNK_BYTES: usize = 1 << 18;

/// An open file whose header has been validated.
#[derive(Debug)]
pub(crate) struct WeightFile {
    path: PathBuf,
    file: fs_err::File,
    entries: BTreeMap<String, Entry>,
    /// Bytes of values read so far.
    read: AtomicU64,
}

impl WeightFile {
    /// Opens `path` and validates its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let file = fs_err::File::open(path).map_err(io)?;
        let file_bytes = file.metadata().map_err(io)?.len();
        if file_bytes < 8 {
            return Err(Error::Length {
                path: path.to_owned(),
                expected: 8,
                found: file_bytes,
            });
        }
        let mut first = [0; 8];
        read_exact_at(&file, &mut first, 0).map_err(io)?;
        let length = header::header_length(path, first, file_bytes)?;
        let mut json = vec![0; length as usize];
        read_exact_at(&file, &mut json, 8).map_err(io)?;
        let entries = header::parse(path, &json, file_bytes)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            entries,
            read: AtomicU64::new(0),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Bytes of values read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What the system says of the open file.
    pub(crate) fn metadata(&self) -> Result<std::fs::Metadata> {
        self.file.metadata().map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Reads bytes from `offset` on.
    pub(crate) fn read_bytes(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        read_exact_at(&self.file, out, offset).map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Reads elements `start .. start + out.len()` of a tensor as f32.
    ///
    /// # Errors
    /// When the type cannot be read, the file cannot be read, or a value is not finite: a NaN among
    /// the weights would otherwise surface as an empty answer much later.
    pub(crate) fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<()> {
        let Some(entry) = self.entries.get(name) else {
            return Err(Error::MissingTensor {
                name: name.to_owned(),
                files: vec![self.path.clone()],
            });
        };
        let Some(element_type) = entry.element_type else {
            return Err(Error::TensorType {
                path: self.path.clone(),
                name: name.to_owned(),
                found: entry.type_name.clone(),
            });
        };
        let size = element_type.num_bytes();
        let mut bytes = vec![0_u8; CHUNK_BYTES.min(out.len() * size)];
        let mut offset = entry.offset + (start * size) as u64;
        for chunk in out.chunks_mut(CHUNK_BYTES / size) {
            let bytes = &mut bytes[..chunk.len() * size];
            self.read_bytes(offset, bytes)?;
            offset += bytes.len() as u64;
            convert(element_type, bytes, chunk);
            if !chunk.iter().all(|value| value.is_finite()) {
                return Err(Error::NotFinite {
                    path: self.path.clone(),
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn convert(element_type: ElementType, bytes: &[u8], out: &mut [f32]) {
    match element_type {
        ElementType::F32 => {
            for (value, raw) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
            }
        }
        ElementType::Bf16 => {
            for (value, raw) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = bf16::from_le_bytes([raw[0], raw[1]]).to_f32();
            }
        }
        ElementType::F16 => {
            for (value, raw) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = f16::from_le_bytes([raw[0], raw[1]]).to_f32();
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &fs_err::File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.file().read_exact_at(buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(
    file: &fs_err::File,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        let read = file.file().seek_read(buffer, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        offset += read as u64;
        buffer = &mut buffer[read..];
    }
    Ok(())
}
