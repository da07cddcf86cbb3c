//! The two checksums of the hub: SHA-256 for large files (git LFS), the git object name for small ones.
//!
//! A git object name is the SHA-1 of `blob <length>\0` and the bytes. SHA-1 is no defence against
//! someone who makes two files with one name; against broken transfers it is as good as any, and the
//! weights are always covered by SHA-256.

use std::fmt::Write as _;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The expected checksum of a file, which is also the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the bytes, 64 hexadecimal digits.
    Sha256(String),
    /// Git object name, 40 hexadecimal digits.
    Git(String),
}

impl Checksum {
    /// The hexadecimal digits: the blob's name.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// Its name in messages.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git SHA-1",
        }
    }

    /// A hasher for a file of `bytes` bytes.
    pub(super) fn hasher(&self, bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {bytes}\0"));
                Hasher::Git(hasher)
            }
        }
    }
}

/// A checksum in the making.
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// The checksum in lower-case hexadecimal digits.
    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string succeeds; an error is a bug");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(kind: &Checksum, bytes: &[u8]) -> String {
        let mut hasher = kind.hasher(bytes.len() as u64);
        for part in bytes.chunks(3) {
            hasher.update(part);
        }
        hasher.finish()
    }

    #[test]
    fn known_values() {
        let git = Checksum::Git(String::new());
        // `git hash-object` of the empty file and of "hello\n".
        assert_eq!(sum(&git, b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(
            sum(&git, b"hello\n"),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        let sha256 = Checksum::Sha256(String::new());
        // FIPS 180-4, example "abc".
        assert_eq!(
            sum(&sha256, b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
