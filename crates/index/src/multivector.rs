//! The rows of one page, in 16 bits.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::error::{Error, Result};

/// The largest payload of one page: 64 MiB, 250 times a page of 1 088 rows of 128.
pub(crate) const MAX_PAGE_BYTES: u64 = 64 << 20;

/// Several rows of `dim` values, stored one after the other: `(row, dim)`.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiVector {
    dim: usize,
    rows: Vec<f16>,
}

impl MultiVector {
    /// Rows already in 16 bits.
    ///
    /// # Errors
    /// If `rows` are not whole rows of `dim` values, are too many, or hold a NaN or an infinity.
    pub fn new(dim: usize, rows: Vec<f16>) -> Result<Self> {
        check_shape(rows.len(), dim)?;
        if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
            return Err(Error::RowNotFinite {
                row: at / dim,
                column: at % dim,
                value: rows[at].to_f32(),
            });
        }
        Ok(Self { dim, rows })
    }

    /// Rounds rows of `f32` to 16 bits.
    ///
    /// # Errors
    /// As [`MultiVector::new`]; a value beyond ±65 504 has no 16-bit form and is refused.
    pub fn from_f32(dim: usize, rows: &[f32]) -> Result<Self> {
        check_shape(rows.len(), dim)?;
        let mut halves = vec![f16::ZERO; rows.len()];
        halves.convert_from_f32_slice(rows);
        if let Some(at) = halves.iter().position(|value| !value.is_finite()) {
            return Err(Error::RowNotFinite {
                row: at / dim,
                column: at % dim,
                value: rows[at],
            });
        }
        Ok(Self { dim, rows: halves })
    }

    /// Values a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows.len() / self.dim
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f16] {
        &self.rows
    }
}

fn check_shape(len: usize, dim: usize) -> Result<()> {
    if dim == 0 || len == 0 || !len.is_multiple_of(dim) {
        return Err(Error::RaggedRows { len, dim });
    }
    if len as u64 * 2 > MAX_PAGE_BYTES {
        return Err(Error::TooManyRows {
            num_rows: len / dim,
            dim,
            limit: MAX_PAGE_BYTES,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_number_naming_the_place() {
        let mut rows = vec![0.5; 12];
        rows[7] = f32::NAN;
        assert!(matches!(
            MultiVector::from_f32(4, &rows),
            Err(Error::RowNotFinite {
                row: 1,
                column: 3,
                ..
            })
        ));
        rows[7] = 70_000.0; // finite, but an infinity in 16 bits
        assert!(matches!(
            MultiVector::from_f32(4, &rows),
            Err(Error::RowNotFinite { row: 1, column: 3, value }) if value == 70_000.0
        ));
        assert!(MultiVector::new(1, vec![f16::NEG_INFINITY]).is_err());
    }

    #[test]
    fn refuses_ragged_empty_and_enormous_rows() {
        assert!(matches!(
            MultiVector::from_f32(4, &[0.0; 6]),
            Err(Error::RaggedRows { .. })
        ));
        assert!(matches!(
            MultiVector::from_f32(0, &[0.0; 6]),
            Err(Error::RaggedRows { .. })
        ));
        assert!(matches!(
            MultiVector::from_f32(4, &[]),
            Err(Error::RaggedRows { .. })
        ));
        let many = vec![f16::ZERO; (MAX_PAGE_BYTES / 2) as usize + 128];
        assert!(matches!(
            MultiVector::new(128, many),
            Err(Error::TooManyRows { .. })
        ));
    }
}
