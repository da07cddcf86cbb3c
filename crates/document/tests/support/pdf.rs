//! A PDF writer for tests: pages with boxes, rotation and content streams, Helvetica, and
//! whatever other objects a test makes up.

use std::fmt::Write;

/// A page to be written.
#[derive(Clone)]
pub struct PdfPage {
    pub media: [f32; 4],
    pub crop: Option<[f32; 4]>,
    pub rotate: i32,
    pub content: Vec<u8>,
    /// Entries of the content stream's dictionary beside its length.
    pub content_entries: String,
    /// The `/Font` resource of name `F2`, as a dictionary; `F1` is Helvetica.
    pub second_font: Option<String>,
}

impl Default for PdfPage {
    fn default() -> Self {
        Self {
            media: super::LETTER,
            crop: None,
            rotate: 0,
            content: Vec::new(),
            content_entries: String::new(),
            second_font: None,
        }
    }
}

impl PdfPage {
    /// A page with content.
    pub fn new(content: &str) -> Self {
        Self {
            content: content.as_bytes().to_vec(),
            ..Self::default()
        }
    }

    /// A page of lines `(text, x, baseline)` in 12 pt Helvetica, y up.
    pub fn text(lines: &[(&str, f32, f32)]) -> Self {
        let mut content = String::new();
        for (text, x, y) in lines {
            let text = text.replace('(', "\\(").replace(')', "\\)");
            writeln!(content, "BT /F1 12 Tf {x} {y} Td ({text}) Tj ET").unwrap();
        }
        Self::new(&content)
    }
}

/// Objects of a file, numbered from 1.
#[derive(Default)]
pub struct Writer {
    objects: Vec<Vec<u8>>,
}

impl Writer {
    /// Adds an object and returns its number.
    pub fn add(&mut self, body: impl Into<Vec<u8>>) -> usize {
        self.objects.push(body.into());
        self.objects.len()
    }

    /// Adds a stream with entries of its dictionary beside the length.
    pub fn stream(&mut self, entries: &str, data: &[u8]) -> usize {
        let mut body = format!("<< /Length {} {entries} >>\nstream\n", data.len()).into_bytes();
        body.extend_from_slice(data);
        body.extend_from_slice(b"\nendstream");
        self.add(body)
    }

    /// Replaces an object.
    pub fn set(&mut self, number: usize, body: impl Into<Vec<u8>>) {
        self.objects[number - 1] = body.into();
    }

    /// The file, with a cross-reference table.
    pub fn finish(&self, trailer: &str) -> Vec<u8> {
        let mut out = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
        let mut xref = String::from("0000000000 65535 f \n");
        for (i, body) in self.objects.iter().enumerate() {
            writeln!(xref, "{:010} 00000 n ", out.len()).unwrap();
            out.extend_from_slice(format!("{} 0 obj\n", i + 1).as_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(b"\nendobj\n");
        }
        let start = out.len();
        let size = self.objects.len() + 1;
        let end = format!(
            "xref\n0 {size}\n{xref}trailer\n<< /Size {size} {trailer} >>\nstartxref\n{start}\n%%EOF\n"
        );
        out.extend_from_slice(end.as_bytes());
        out
    }
}

/// A PDF of pages.
pub fn pdf(pages: &[PdfPage]) -> Vec<u8> {
    pdf_with_info(pages, None)
}

/// A PDF of pages with an information dictionary.
pub fn pdf_with_info(pages: &[PdfPage], info: Option<&[u8]>) -> Vec<u8> {
    let mut writer = Writer::default();
    let catalog = writer.add("");
    let tree = writer.add("");
    let font = writer
        .add("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>");
    let mut kids = String::new();
    for page in pages {
        let content = writer.stream(&page.content_entries, &page.content);
        let mut fonts = format!("/F1 {font} 0 R");
        if let Some(second) = &page.second_font {
            let second = writer.add(second.as_str());
            write!(fonts, " /F2 {second} 0 R").unwrap();
        }
        let array = |b: [f32; 4]| format!("[{} {} {} {}]", b[0], b[1], b[2], b[3]);
        let crop = page
            .crop
            .map_or(String::new(), |c| format!("/CropBox {}", array(c)));
        let number = writer.add(format!(
            "<< /Type /Page /Parent {tree} 0 R /MediaBox {} {crop} /Rotate {} \
             /Resources << /Font << {fonts} >> >> /Contents {content} 0 R >>",
            array(page.media),
            page.rotate
        ));
        write!(kids, "{number} 0 R ").unwrap();
    }
    writer.set(catalog, format!("<< /Type /Catalog /Pages {tree} 0 R >>"));
    writer.set(
        tree,
        format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len()),
    );
    let info = info.map(|info| writer.add(info));
    let info = info.map_or(String::new(), |n| format!("/Info {n} 0 R"));
    writer.finish(&format!("/Root {catalog} 0 R {info}"))
}

/// A zlib stream of one byte repeated `258 * repeats + 1` times, at 13 bits for 258 bytes.
pub fn zlib_of_one_byte(byte: u8, repeats: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // One last block with fixed codes (RFC 1951, 3.2.6).
    bits.push(0b011, 3);
    // A literal below 144: eight bits from 0x30.
    assert!(byte < 144);
    bits.push_code(0x30 + u32::from(byte), 8);
    for _ in 0..repeats {
        // Length 258 is code 285, distance 1 is code 0.
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    bits.push_code(0, 7);
    let mut out = vec![0x78, 0x9c];
    out.extend(bits.finish());
    // Adler-32 of the repeated byte.
    let (mut a, mut b) = (1_u64, 0_u64);
    for _ in 0..=258 * repeats {
        a = (a + u64::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend(((b as u32) << 16 | a as u32).to_be_bytes());
    out
}

#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    current: u32,
    count: u32,
}

impl Bits {
    /// Least significant bit first.
    fn push(&mut self, value: u32, count: u32) {
        for i in 0..count {
            self.current |= ((value >> i) & 1) << self.count;
            self.count += 1;
            if self.count == 8 {
                self.out.push(self.current as u8);
                (self.current, self.count) = (0, 0);
            }
        }
    }

    /// Huffman codes go most significant bit first.
    fn push_code(&mut self, code: u32, count: u32) {
        for i in (0..count).rev() {
            self.push((code >> i) & 1, 1);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.out.push(self.current as u8);
        }
        self.out
    }
}
