//! Views of row-major `f32` matrices with any distance between rows.
//!
//! A stride lets one buffer hold several matrices side by side (a fused q, k, v buffer; the heads of a
//! cache), so no kernel needs a copy to see one of them.

use std::ops::Range;

/// A read-only matrix: row `r` is `data[r * stride .. r * stride + num_cols]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    height: usize,
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// A dense matrix of `num_rows × num_cols`.
    ///
    /// # Panics
    /// If `data` is shorter than the matrix.
    #[track_caller]
    pub fn new(data: &'a [f32], num_rows: usize, num_cols: usize) -> Self {
        Self::strided(data, num_rows, num_cols, num_cols)
    }

    /// A matrix whose rows start `stride` values apart.
    ///
    /// # Panics
    /// If the rows overlap or `data` is shorter than the matrix.
    #[track_caller]
    pub fn strided(data: &'a [f32], num_rows: usize, num_cols: usize, stride: usize) -> Self {
        check(data.len(), num_rows, num_cols, stride);
        Self {
            data,
            height: num_rows,
            width: num_cols,
            stride,
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn num_cols(&self) -> usize {
        self.width
    }

    /// Distance between the starts of two rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `row`, `num_cols` values.
    ///
    /// # Panics
    /// If there is no such row.
    #[track_caller]
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(
            row < self.height,
            "row {row} of {} rows is a bug",
            self.height
        );
        &self.data[row * self.stride..row * self.stride + self.width]
    }

    /// The rows in `range`.
    ///
    /// # Panics
    /// If the range reaches past the last row.
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.height,
            "rows {range:?} of {} rows is a bug",
            self.height
        );
        let start = (range.start * self.stride).min(self.data.len());
        Self {
            data: &self.data[start..],
            height: range.len(),
            width: self.width,
            stride: self.stride,
        }
    }

    /// The columns in `range` of every row.
    ///
    /// # Panics
    /// If the range reaches past the last column.
    #[must_use]
    #[track_caller]
    pub fn columns(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.width,
            "columns {range:?} of {} columns is a bug",
            self.width
        );
        let start = range.start.min(self.data.len());
        Self {
            data: &self.data[start..],
            height: self.height,
            width: range.len(),
            stride: self.stride,
        }
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

/// A matrix that is written: row `r` is `data[r * stride .. r * stride + num_cols]`; what lies between the
/// rows is left alone.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    height: usize,
    width: usize,
    stride: usize,
}

impl<'a> RowsMut<'a> {
    /// A dense matrix of `num_rows × num_cols`.
    ///
    /// # Panics
    /// If `data` is shorter than the matrix.
    #[track_caller]
    pub fn new(data: &'a mut [f32], num_rows: usize, num_cols: usize) -> Self {
        Self::strided(data, num_rows, num_cols, num_cols)
    }

    /// A matrix whose rows start `stride` values apart.
    ///
    /// # Panics
    /// If the rows overlap or `data` is shorter than the matrix.
    #[track_caller]
    pub fn strided(data: &'a mut [f32], num_rows: usize, num_cols: usize, stride: usize) -> Self {
        check(data.len(), num_rows, num_cols, stride);
        Self {
            data,
            height: num_rows,
            width: num_cols,
            stride,
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn num_cols(&self) -> usize {
        self.width
    }

    /// Distance between the starts of two rows, in values.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `row`, `num_cols` values.
    ///
    /// # Panics
    /// If there is no such row.
    #[track_caller]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(
            row < self.height,
            "row {row} of {} rows is a bug",
            self.height
        );
        &mut self.data[row * self.stride..row * self.stride + self.width]
    }

    /// The same matrix, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> RowsMut<'_> {
        RowsMut {
            data: self.data,
            height: self.height,
            width: self.width,
            stride: self.stride,
        }
    }

    /// The same matrix, read.
    pub fn as_rows(&self) -> Rows<'_> {
        Rows {
            data: self.data,
            height: self.height,
            width: self.width,
            stride: self.stride,
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data.as_mut_ptr()
    }
}

#[track_caller]
fn check(len: usize, num_rows: usize, num_cols: usize, stride: usize) {
    assert!(
        num_cols <= stride || num_rows <= 1,
        "rows of {num_cols} values at a distance of {stride} is a bug"
    );
    let needed = match num_rows {
        0 => Some(0),
        _ => (num_rows - 1)
            .checked_mul(stride)
            .and_then(|start| start.checked_add(num_cols)),
    };
    assert!(
        needed.is_some_and(|needed| needed <= len),
        "{num_rows} rows of {num_cols} values at a distance of {stride} in a slice of {len} is a bug"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_view_sees_its_columns_only() {
        let data: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let rows = Rows::strided(&data[1..], 3, 2, 4);
        assert_eq!(rows.row(2), [9.0, 10.0]);
        assert_eq!(rows.slice(1..3).row(0), [5.0, 6.0]);
        assert_eq!(rows.columns(1..2).row(1), [6.0]);
        assert_eq!(rows.slice(3..3).num_rows(), 0);
    }

    #[test]
    fn writing_leaves_the_gaps_alone() {
        let mut data = [0.0; 8];
        let mut rows = RowsMut::strided(&mut data, 2, 3, 4);
        rows.row_mut(0).fill(1.0);
        rows.reborrow().row_mut(1).fill(2.0);
        assert_eq!(rows.as_rows().row(1), [2.0; 3]);
        assert_eq!(data, [1.0, 1.0, 1.0, 0.0, 2.0, 2.0, 2.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "is a bug")]
    fn a_short_slice_is_refused() {
        let _ = Rows::strided(&[0.0; 5], 2, 2, 4);
    }
}
