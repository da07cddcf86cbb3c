//! The real documents: all of them open, every page is drawn, and their words find the right
//! pages.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: a step that fails is a test that fails"
)]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use colibri_document::{Document, OpenOptions, RenderSize, TextLayer};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs_err::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn every_pdf_page_is_drawn_and_words_stand_on_ink() {
    let Some(corpus) = support::corpus("every_pdf_page_is_drawn_and_words_stand_on_ink") else {
        return;
    };
    let size = RenderSize { longest_edge: 700 };
    let mut pages = 0;
    for path in files(&corpus.join("pdf")) {
        let mut document = Document::open(&path, &OpenOptions::default()).unwrap();
        for number in 1..=document.num_pages() {
            let page = document.page(number, &size).unwrap();
            pages += 1;
            assert_eq!(page.image.width().max(page.image.height()), 700);
            let (width, height) = page.image.dimensions();
            let inked = |b: colibri_document::BBox| {
                let x = (b.x0 * width as f32) as u32..((b.x1 * width as f32) as u32 + 1).min(width);
                let mut levels = x.flat_map(|x| {
                    let y0 = (b.y0 * height as f32) as u32;
                    let y1 = ((b.y1 * height as f32) as u32 + 1).min(height);
                    (y0..y1).map(move |y| (x, y))
                });
                let first = levels.next().map(|(x, y)| page.image.get_pixel(x, y).0);
                levels.any(|(x, y)| {
                    let pixel = page.image.get_pixel(x, y).0;
                    first.is_some_and(|f| f.iter().zip(pixel).any(|(a, b)| a.abs_diff(b) > 40))
                })
            };
            let words = &page.text.words;
            let on_ink = words.iter().filter(|w| inked(w.bbox)).count();
            // Words that are clipped, covered or white on white exist, but are few.
            assert!(
                words.len() - on_ink <= 3.max(words.len() * 3 / 100),
                "{} page {number}: {on_ink} of {} words stand on ink",
                path.display(),
                words.len()
            );
        }
    }
    assert_eq!(pages, 70);
}

#[test]
fn every_picture_is_decoded() {
    let Some(corpus) = support::corpus("every_picture_is_decoded") else {
        return;
    };
    let images = files(&corpus.join("img"));
    assert_eq!(images.len(), 20);
    for path in images {
        let mut document = Document::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(document.num_pages(), 1);
        let page = document.page(1, &RenderSize::default()).unwrap();
        assert!(page.image.width() > 100, "{}", path.display());
        assert_eq!(page.text.layer, TextLayer::None);
    }
}

/// Okapi BM25 as SQLite's FTS5 has it (k1 = 1.2, b = 0.75), over lower-case words.
struct Bm25 {
    pages: Vec<HashMap<String, f64>>,
    lengths: Vec<f64>,
    document_frequency: HashMap<String, f64>,
}

fn tokens(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

impl Bm25 {
    fn new(texts: &[String]) -> Self {
        let mut bm25 = Self {
            pages: Vec::new(),
            lengths: Vec::new(),
            document_frequency: HashMap::new(),
        };
        for text in texts {
            let mut counts: HashMap<String, f64> = HashMap::new();
            let words = tokens(text);
            bm25.lengths.push(words.len() as f64);
            for word in words {
                *counts.entry(word).or_default() += 1.0;
            }
            for word in counts.keys() {
                *bm25.document_frequency.entry(word.clone()).or_default() += 1.0;
            }
            bm25.pages.push(counts);
        }
        bm25
    }

    fn best(&self, query: &str) -> usize {
        let num_pages = self.pages.len() as f64;
        let mean = self.lengths.iter().sum::<f64>() / num_pages;
        let score = |page: usize| -> f64 {
            tokens(query)
                .iter()
                .map(|word| {
                    let count = self.pages[page].get(word).copied().unwrap_or(0.0);
                    let df = self.document_frequency.get(word).copied().unwrap_or(0.0);
                    let idf = ((num_pages - df + 0.5) / (df + 0.5) + 1.0).ln();
                    let norm = 1.2 * (0.25 + 0.75 * self.lengths[page] / mean);
                    idf * count * 2.2 / (count + norm)
                })
                .sum()
        };
        (0..self.pages.len())
            .max_by(|a, b| score(*a).total_cmp(&score(*b)))
            .unwrap()
    }
}

#[test]
fn words_find_the_right_page_for_four_of_five_questions() {
    let Some(corpus) = support::corpus("words_find_the_right_page_for_four_of_five_questions")
    else {
        return;
    };
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for path in files(&corpus.join("pdf")) {
        let mut document = Document::open(&path, &OpenOptions::default()).unwrap();
        let name = format!("pdf/{}", path.file_name().unwrap().to_string_lossy());
        for number in 1..=document.num_pages() {
            names.push((name.clone(), number as u64));
            texts.push(document.page_text(number).unwrap().searchable());
        }
    }
    let bm25 = Bm25::new(&texts);
    // No text layer, or only titles, by the corpus's own table.
    let without = ["linn", "slerexe", "acme"];
    let (mut asked, mut right) = (0, 0);
    let questions = fs_err::read_to_string(corpus.join("questions.jsonl")).unwrap();
    for line in questions.lines() {
        let question: serde_json::Value = serde_json::from_str(line).unwrap();
        let document = question["doc"].as_str().unwrap();
        if !document.starts_with("pdf/") || without.iter().any(|w| document.contains(w)) {
            continue;
        }
        asked += 1;
        let text = question["question"].as_str().unwrap();
        let found = &names[bm25.best(text)];
        let expected = (document.to_owned(), question["page"].as_u64().unwrap());
        if *found == expected {
            right += 1;
        } else {
            eprintln!("{text:?}: {found:?} for {expected:?}");
        }
    }
    eprintln!("{right} of {asked} questions find their page first");
    assert!(asked > 10);
    assert!(right * 5 >= asked * 4, "{right} of {asked}");
}
