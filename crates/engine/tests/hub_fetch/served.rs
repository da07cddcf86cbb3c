//! The files that the stand-in serves: bytes, and how the hub would list them.

use std::fmt::Write as _;

use sha2::Digest as _;

/// A file of the repository.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    /// Large files have a SHA-256 in the listing, small ones a git name.
    pub(crate) lfs: bool,
}

impl Served {
    pub(crate) fn small(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            bytes: text.into(),
            lfs: false,
        }
    }

    /// `bytes` bytes that differ from file to file and from place to place.
    pub(crate) fn large(path: &str, bytes: usize) -> Self {
        let seed = path
            .bytes()
            .fold(7u32, |a, b| a.wrapping_mul(31).wrapping_add(u32::from(b)));
        let bytes = (0..bytes as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) ^ seed) as u8)
            .collect();
        Self {
            path: path.into(),
            bytes,
            lfs: true,
        }
    }

    /// The blob's name in the cache.
    pub(crate) fn blob(&self) -> String {
        if self.lfs {
            hex(&sha2::Sha256::digest(&self.bytes))
        } else {
            let mut hasher = sha1::Sha1::new();
            hasher.update(format!("blob {}\0", self.bytes.len()));
            hasher.update(&self.bytes);
            hex(&hasher.finalize())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A small ordinary checkpoint; the weights have a mebibyte and a bit.
pub(crate) fn checkpoint() -> Vec<Served> {
    vec![
        Served::small(".gitattributes", "*.safetensors filter=lfs"),
        Served::small("README.md", "# model"),
        Served::small("config.json", r#"{"model_type": "idefics3"}"#),
        Served::small("chat_template.json", ""),
        Served::large("model.safetensors", (1 << 20) + 77),
        Served::large("onnx/model.onnx", 999),
        Served::small(
            "preprocessor_config.json",
            r#"{"size": {"longest_edge": 2048}}"#,
        ),
        Served::large("pytorch_model.bin", 500),
        Served::large("tokenizer.json", 70_000),
    ]
}
