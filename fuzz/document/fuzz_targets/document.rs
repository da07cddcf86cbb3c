//! Any bytes: told apart, decoded as a picture, opened as a document, the first page read.
//!
//! `cargo +nightly fuzz run document --fuzz-dir fuzz/document -- -max_total_time=600 -rss_limit_mb=4096`
//!
//! What is looked for is a panic that gets out, a hang, or memory without bound in this crate and
//! the picture decoders. The PDF library's own panics are caught by design (a worker process holds
//! the rest), so libFuzzer's panic hook, which aborts before they can be caught, is taken out.

#![no_main]

use std::io::Write;

use colibri_document::image_file::decode_image;
use colibri_document::{Document, Limits, OpenOptions, RenderSize, sniff};
use libfuzzer_sys::fuzz_target;

fn limits() -> Limits {
    Limits {
        max_pixels: 1 << 20,
        max_pages: 100,
        max_glyphs_per_page: 5_000,
        ..Limits::default()
    }
}

fuzz_target!(
    init: {
        drop(std::panic::take_hook());
    },
    |data: &[u8]| {
        let kind = sniff(data);
        let decoded = decode_image(data, &limits());
        if kind.is_none() && decoded.is_ok() {
            // A panic would be printed and caught by nobody: abort, so that it is a finding.
            std::process::abort();
        }
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(data).expect("room for a temporary file");
        let options = OpenOptions {
            limits: limits(),
            ..OpenOptions::default()
        };
        if let Ok(mut document) = Document::open(file.path(), &options)
            && let Ok(page) = document.page(1, &RenderSize { longest_edge: 128 })
        {
            let pixels = u64::from(page.image.width()) * u64::from(page.image.height());
            let within = |v: f32| (0.0..=1.0).contains(&v);
            let boxes_fit = page.text.words.iter().all(|word| {
                let b = word.bbox;
                within(b.x0) && within(b.y0) && within(b.x1) && within(b.y1)
            });
            if pixels > limits().max_pixels || !boxes_fit {
                std::process::abort();
            }
        }
    }
);
