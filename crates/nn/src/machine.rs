//! What this machine can do and whether its paths are right, for `colibri bench` and `colibri doctor`.

use std::{convert::Infallible, time::Instant};

use colibri_kernels::{
    gemm::{Activation, PackedMatrix, Product, Write, matmul},
    isa::Isa,
    peak::{self, Clock},
    rows::{Rows, RowsMut},
};

pub use colibri_kernels::{
    return_freed_blocks, return_large_blocks,
    selfcheck::{Check, run as check_paths},
};

use crate::Precision;

/// Runs a peak is the best of.
const TRIES: usize = 5;

/// Operations (two for each product) a second that the inner tile of `precision` reaches on all threads, with
/// operands in the first level of cache: what measurements of whole models are compared with.
pub fn operations_per_second(precision: Precision) -> f64 {
    peak::operations_per_second(Isa::detect(), precision, Clock::Wall, TRIES)
}

/// Bytes a second that all threads together read from memory.
pub fn bytes_per_second() -> f64 {
    peak::bytes_per_second(Clock::Wall, TRIES)
}

/// A layer of made-up weights that can be timed.
#[derive(Debug)]
pub struct Multiplication {
    weights: PackedMatrix,
    x: Vec<f32>,
    out: Vec<f32>,
    rows: usize,
}

impl Multiplication {
    /// `rows` rows of `inputs` values times a matrix `(outputs, inputs)`.
    pub fn new(precision: Precision, rows: usize, inputs: usize, outputs: usize) -> Self {
        let wave = |at: usize| ((at % 251) as f32 - 125.0) / 125.0;
        let packed =
            PackedMatrix::pack::<Infallible>(precision, outputs, inputs, |range, buffer| {
                let first = range.start * inputs;
                for (at, value) in buffer.iter_mut().enumerate() {
                    *value = wave(first + at);
                }
                Ok(())
            });
        let weights = match packed {
            Ok(weights) => weights,
            Err(never) => match never {},
        };
        Self {
            weights,
            x: (0..rows * inputs).map(wave).collect(),
            out: vec![0.0; rows * outputs],
            rows,
        }
    }

    /// Operations of one product.
    pub fn operations(&self) -> f64 {
        2.0 * (self.rows * self.weights.in_features() * self.weights.out_features()) as f64
    }

    /// Bytes of the weights.
    pub fn num_bytes(&self) -> usize {
        self.weights.num_bytes()
    }

    /// Seconds of one product, the best of `tries`.
    pub fn seconds(&mut self, tries: usize) -> f64 {
        let mut best = f64::INFINITY;
        for _ in 0..tries.max(1) {
            let start = Instant::now();
            matmul(
                Rows::new(&self.x, self.rows, self.weights.in_features()),
                Product {
                    weights: &self.weights,
                    bias: None,
                    activation: Activation::Identity,
                    write: Write::Store,
                    out: RowsMut::new(&mut self.out, self.rows, self.weights.out_features()),
                },
            );
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    }
}
