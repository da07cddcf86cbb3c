//! The bytes of a segment file.
//!
//! ```text
//! segment  = header record*
//! header   = "COLIBVEC" version:u32 element:u32 id:u64 dim:u32 zero[28] check:u64          64 bytes
//! record   = "PAGE" num_rows:u32 dim:u32 zero:u32 payload_bytes:u64 hash[32] check:u64     64 bytes
//!            payload, zeros up to the next multiple of 64
//! payload  = num_rows × dim values of 16 bits (IEEE 754 binary16)
//! ```
//!
//! All numbers are little-endian. `hash` is BLAKE3 of the payload, `check` the first eight bytes of BLAKE3
//! of the header before it. Every record starts at a multiple of 64, so that rows are aligned for any
//! vector instruction. A segment only grows; how much of it counts stands in the catalogue, and what lies
//! beyond is left over from a writer that did not finish.

use std::ops::Range;

use half::f16;

use crate::multivector::{MAX_PAGE_BYTES, MultiVector};

#[cfg(target_endian = "big")]
compile_error!("segments hold little-endian numbers and are read in place");

/// The version this program writes.
pub(crate) const VERSION: u32 = 1;
/// What a segment begins with.
pub(crate) const MAGIC: &[u8; 8] = b"COLIBVEC";
/// Bytes before the first record.
pub(crate) const HEADER_BYTES: u64 = 64;
/// Bytes before a record's payload; also what records are aligned to.
pub(crate) const RECORD_HEADER_BYTES: u64 = 64;
const RECORD_MAGIC: &[u8; 4] = b"PAGE";
const ELEMENT_F16: u32 = 1;
/// Where the check of either header begins.
const CHECK_AT: usize = 56;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u64,
    pub(crate) dim: u32,
}

/// Why a segment header is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Short,
    Magic(String),
    Version(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&ELEMENT_F16.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.dim.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes: &[u8; 64] = bytes.first_chunk().ok_or(HeaderFault::Short)?;
        if &bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic(bytes[..8].escape_ascii().to_string()));
        }
        // The version comes before the check: a newer version may lay the rest out differently.
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        if !is_sealed(bytes) {
            return Err(HeaderFault::Damaged(
                "the checksum of the header does not match",
            ));
        }
        if u32_at(bytes, 12) != ELEMENT_F16 {
            return Err(HeaderFault::Damaged("the values are of an unknown kind"));
        }
        Ok(Self {
            id: u64_at(bytes, 16),
            dim: u32_at(bytes, 24),
        })
    }
}

/// The first bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) num_rows: u32,
    pub(crate) dim: u32,
    pub(crate) hash: [u8; 32],
}

impl RecordHeader {
    pub(crate) fn payload_bytes(&self) -> u64 {
        u64::from(self.num_rows) * u64::from(self.dim) * 2
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; 64] = bytes
            .first_chunk()
            .ok_or("the record header is cut short")?;
        if &bytes[..4] != RECORD_MAGIC {
            return Err("no record begins here");
        }
        if !is_sealed(bytes) {
            return Err("the checksum of the record header does not match");
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[24..56]);
        let header = Self {
            num_rows: u32_at(bytes, 4),
            dim: u32_at(bytes, 8),
            hash,
        };
        let payload = header.payload_bytes();
        if payload == 0 || payload > MAX_PAGE_BYTES || payload != u64_at(bytes, 16) {
            return Err("the record header contradicts itself");
        }
        Ok(header)
    }
}

/// BLAKE3 of the rows as they are stored.
pub(crate) fn payload_hash(payload: &[f16]) -> [u8; 32] {
    *blake3::hash(bytemuck::cast_slice(payload)).as_bytes()
}

/// A whole record, padded: what is appended to a segment for one page.
pub(crate) fn encode_record(rows: &MultiVector, hash: [u8; 32]) -> Vec<u8> {
    let payload: &[u8] = bytemuck::cast_slice(rows.as_slice());
    let mut bytes = vec![0; RECORD_HEADER_BYTES as usize];
    bytes.reserve_exact(padded(payload.len() as u64) as usize);
    bytes[..4].copy_from_slice(RECORD_MAGIC);
    bytes[4..8].copy_from_slice(&(rows.num_rows() as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&(rows.dim() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes[24..56].copy_from_slice(&hash);
    let mut header = [0; 64];
    header.copy_from_slice(&bytes);
    seal(&mut header);
    bytes.copy_from_slice(&header);
    bytes.extend_from_slice(payload);
    bytes.resize(
        RECORD_HEADER_BYTES as usize + padded(payload.len() as u64) as usize,
        0,
    );
    bytes
}

/// The bytes a record of `num_rows × dim` takes with header and padding.
pub(crate) fn record_bytes(num_rows: u32, dim: u32) -> u64 {
    RECORD_HEADER_BYTES + padded(u64::from(num_rows) * u64::from(dim) * 2)
}

/// The record of `num_rows × dim` at `offset` in `bytes`: its header and where its payload lies.
///
/// Nothing outside `bytes` is touched whatever `offset` and the header say.
pub(crate) fn locate(
    bytes: &[u8],
    offset: u64,
    num_rows: u32,
    dim: u32,
) -> Result<(RecordHeader, Range<usize>), &'static str> {
    if offset < HEADER_BYTES || !offset.is_multiple_of(RECORD_HEADER_BYTES) {
        return Err("no record can begin here");
    }
    let start = usize::try_from(offset).map_err(|_| "the offset is beyond the file")?;
    let header = RecordHeader::decode(bytes.get(start..).ok_or("the offset is beyond the file")?)?;
    if header.num_rows != num_rows || header.dim != dim {
        return Err("the record has another shape than the catalogue says");
    }
    let payload = start + RECORD_HEADER_BYTES as usize;
    let end = payload + header.payload_bytes() as usize;
    if end > bytes.len() {
        Err("the rows are cut short")
    } else {
        Ok((header, payload..end))
    }
}

fn padded(len: u64) -> u64 {
    len.next_multiple_of(RECORD_HEADER_BYTES)
}

fn check(bytes: &[u8; 64]) -> [u8; 8] {
    let hash = blake3::hash(&bytes[..CHECK_AT]);
    let mut check = [0; 8];
    check.copy_from_slice(&hash.as_bytes()[..8]);
    check
}

fn seal(bytes: &mut [u8; 64]) {
    let check = check(bytes);
    bytes[CHECK_AT..].copy_from_slice(&check);
}

fn is_sealed(bytes: &[u8; 64]) -> bool {
    bytes[CHECK_AT..] == check(bytes)
}

fn u32_at(bytes: &[u8; 64], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; 64], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Vec<u8> {
        let rows = MultiVector::from_f32(3, &[1.0, -2.0, 0.5, 4.0, 5.0, 6.0]).unwrap();
        let mut bytes = SegmentHeader { id: 7, dim: 3 }.encode().to_vec();
        bytes.extend(encode_record(&rows, payload_hash(rows.as_slice())));
        bytes
    }

    #[test]
    fn a_record_is_found_where_it_was_put() {
        let bytes = sample();
        assert_eq!(
            SegmentHeader::decode(&bytes),
            Ok(SegmentHeader { id: 7, dim: 3 })
        );
        assert_eq!(bytes.len() as u64, HEADER_BYTES + record_bytes(2, 3));
        let (header, range) = locate(&bytes, 64, 2, 3).unwrap();
        let rows: &[f16] = bytemuck::cast_slice(&bytes[range]);
        assert_eq!(rows[1].to_f32(), -2.0);
        assert_eq!(header.hash, payload_hash(rows));
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_noticed() {
        let bytes = sample();
        for at in 0..64 * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(SegmentHeader::decode(&damaged).is_err(), "header bit {at}");
            let mut damaged = bytes.clone();
            damaged[64 + at / 8] ^= 1 << (at % 8);
            assert!(locate(&damaged, 64, 2, 3).is_err(), "record bit {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = sample();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Version(2)));
        bytes[0] = b'X';
        assert!(matches!(
            SegmentHeader::decode(&bytes),
            Err(HeaderFault::Magic(_))
        ));
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(HeaderFault::Short));
    }

    proptest! {
        #[test]
        fn any_offset_and_shape_stays_inside(
            offset: u64, num_rows: u32, dim: u32, cut in 0usize..200, aligned: bool,
        ) {
            let bytes = sample();
            let bytes = &bytes[..cut.min(bytes.len())];
            let offset = if aligned { offset % 5 * 64 } else { offset };
            drop(locate(bytes, offset, num_rows, dim));
            if let Ok((_, range)) = locate(bytes, offset, 2, 3) {
                prop_assert!(range.end <= bytes.len());
            }
        }
    }
}
