//! What the tests of an index share: made-up pages, and the definition of MaxSim.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test file uses a part of it, and stops where something is wrong"
)]

pub(crate) mod simulated;

use colibri_index::{DocumentRecord, MultiVector, PageRecord, Settings, WordBox};
use half::f16;

/// Values a row in most tests.
pub(crate) const DIM: usize = 16;

/// A small generator of numbers (xorshift): tests need variety, not quality.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Between -1 and 1, with few enough digits to be exact in 16 bits.
    pub(crate) fn value(&mut self) -> f32 {
        (self.below(2049) as f32 - 1024.0) / 1024.0
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        retriever: Some("vidore/colSmol-256M".to_owned()),
        revision: Some("abc".to_owned()),
        prompt_version: Some("1".to_owned()),
        precision: Some("bf16".to_owned()),
        dim: Some(DIM),
    }
}

/// `num_rows` rows of `dim` values, `(row, dim)`.
pub(crate) fn values(seed: u64, num_rows: usize, dim: usize) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    (0..num_rows * dim).map(|_| numbers.value()).collect()
}

pub(crate) fn rows(seed: u64, num_rows: usize) -> MultiVector {
    MultiVector::from_f32(DIM, &values(seed, num_rows, DIM)).unwrap()
}

pub(crate) fn document(path: &str, content: u64) -> DocumentRecord {
    DocumentRecord {
        path: path.to_owned(),
        content_hash: blake3::hash(&content.to_le_bytes()).to_hex().to_string(),
        size_bytes: 1000 + content,
        modified: 1_700_000_000_000_000_000 + content as i64,
        kind: "pdf".to_owned(),
        title: format!("Title {content}"),
        metadata: serde_json::json!({"year": 2000 + content % 30, "tag": "test"})
            .as_object()
            .unwrap()
            .clone(),
    }
}

/// Page `number` of the content `content`: everything about it follows from the two.
pub(crate) fn page(content: u64, number: u32) -> PageRecord {
    let seed = content * 1000 + u64::from(number);
    let mut numbers = Numbers::new(seed);
    let words = [
        "latency",
        "retrieval",
        "passage",
        "figure",
        "colour",
        "budget",
        "water",
        "engine",
        "train",
    ];
    let text: Vec<String> = (0..20)
        .map(|_| words[numbers.below(words.len())].to_owned())
        .chain([format!("unique{content}x{number}")])
        .collect();
    let boxes = text.iter().enumerate().map(|(at, word)| WordBox {
        text: word.clone(),
        bounds: [at as f32, 1.0, at as f32 + 0.5, 2.0],
        line: at as u32 / 5,
    });
    PageRecord {
        number,
        width: 612.0,
        height: 792.0,
        words: boxes.collect(),
        text: text.join(" "),
        rows: Some(rows(seed, 1 + numbers.below(5))),
        geometry: Some(seed.to_le_bytes().to_vec()),
    }
}

pub(crate) fn pages(content: u64, count: u32) -> Vec<PageRecord> {
    (1..=count).map(|number| page(content, number)).collect()
}

/// The definition: for every query row the greatest dot product, added up.
pub(crate) fn maxsim(query: &[f32], dim: usize, rows: &[f16]) -> f32 {
    query
        .chunks_exact(dim)
        .map(|query| {
            rows.chunks_exact(dim)
                .map(|row| {
                    query
                        .iter()
                        .zip(row)
                        .map(|(a, b)| f64::from(*a) * f64::from(b.to_f32()))
                        .sum::<f64>()
                })
                .fold(f64::NEG_INFINITY, f64::max)
        })
        .sum::<f64>() as f32
}

/// Everything one can see of an index, for comparing two states.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) documents: Vec<(DocumentRecord, Vec<SeenPage>)>,
    pub(crate) found_by_text: Vec<(String, u32)>,
    pub(crate) found_by_rows: Vec<(String, u32, f32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenPage {
    pub(crate) number: u32,
    pub(crate) text: String,
    pub(crate) words: Vec<WordBox>,
    pub(crate) rows: Option<Vec<f16>>,
    pub(crate) geometry: Option<Vec<u8>>,
}

pub(crate) fn see(index: &colibri_index::Index) -> Seen {
    use colibri_index::{Filter, Mode, Query};
    let documents = index.list(&Filter::default()).unwrap();
    let documents = documents.into_iter().map(|document| {
        let pages = (1..=document.num_pages).map(|number| {
            let id = index
                .page_id(&document.record.path, number)
                .unwrap()
                .expect("a page of every number");
            let info = index.page(id).unwrap();
            assert_eq!(
                (info.number, &info.document),
                (number, &document.record.path)
            );
            SeenPage {
                number,
                text: info.text,
                words: index.page_words(id).unwrap(),
                rows: (info.num_rows > 0).then(|| index.rows(id).unwrap().to_vec()),
                geometry: index.page_geometry(id).unwrap(),
            }
        });
        let pages = pages.collect();
        (document.record, pages)
    });
    let documents = documents.collect();
    let query = Query {
        text: "retrieval latency".to_owned(),
        mode: Mode::Text,
        k: 1000,
        ..Query::default()
    };
    let by_text = index.search(&query).unwrap();
    let by_rows = index
        .search_visual(&values(7, 3, DIM), DIM, 1000, &Filter::default())
        .unwrap();
    Seen {
        documents,
        found_by_text: by_text
            .into_iter()
            .map(|hit| (hit.document, hit.page))
            .collect(),
        found_by_rows: by_rows
            .into_iter()
            .map(|found| {
                let info = index.page(found.page).unwrap();
                (info.document, info.number, found.score)
            })
            .collect(),
    }
}

/// Copies a folder with everything in it.
pub(crate) fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), target).unwrap();
        }
    }
}

/// What stands in the fixtures under `tests/fixtures`.
pub(crate) fn fill_fixture(writer: &mut colibri_index::Writer) {
    writer
        .add_document(&document("/reports/a.pdf", 1), &pages(1, 3))
        .unwrap();
    writer
        .add_document(&document("/reports/gone.pdf", 2), &pages(2, 2))
        .unwrap();
    let mut scan = page(3, 1);
    scan.text = String::new();
    scan.words = Vec::new();
    writer
        .add_document(&document("/scans/b.png", 3), &[scan])
        .unwrap();
    let mut text_only = page(4, 1);
    text_only.rows = None;
    text_only.geometry = None;
    text_only.text = String::from("Größe naïve 売上高 21,015,324 late-interaction retrie-\nval");
    writer
        .add_document(&document("/notes/c.pdf", 4), &[text_only])
        .unwrap();
    writer
        .copy_document("/reports/a.pdf", &document("/copies/a.pdf", 1))
        .unwrap();
    writer.remove(&["/reports/gone.pdf"]).unwrap();
}
