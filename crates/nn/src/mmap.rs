//! Files mapped into memory.
//!
//! The one place of this crate with `unsafe`: a mapping is sound as long as nobody shortens or rewrites the mapped
//! bytes. Only packed matrices of our own are mapped, and those are replaced by a new file, never written to.
//! Someone who overwrites one with other tools can make results wrong, or end the process if it is cut while in use.
#![expect(unsafe_code, reason = "a file can only be mapped by an unsafe call")]

use fs_err::File;

use memmap2::{Mmap, MmapOptions};

/// The whole of a file.
pub(crate) struct Mapped(Mmap);

impl Mapped {
    /// Maps the first `len` bytes of `file`, which must be as long; `None` where the system refuses.
    pub(crate) fn new(file: &File, len: usize) -> Option<Self> {
        if file.metadata().ok()?.len() < len as u64 {
            return None;
        }
        // SAFETY: the mapping does not reach beyond the end of the file; the bytes do not change, see above.
        let map = unsafe { MmapOptions::new().len(len).map(file) }.ok()?;
        Some(Self(map))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
