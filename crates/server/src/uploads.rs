//! Files that come in bodies: written beside the index, by content, under a harmless name.

use std::path::{Path, PathBuf};

use axum::extract::Request;
use colibri_engine::document::{SNIFF_BYTES, sniff};
use tokio::{fs, io::AsyncWriteExt as _};

use crate::{App, Error, Result, body::Pieces, state::random_name};

/// File systems take 255 bytes; a few are left for those that add to a name.
const LONGEST_NAME: usize = 200;
/// The beginning of the names of files that are not whole yet.
const PARTIAL: &str = ".partial-";

/// Writes a body to a file below the uploads; the same content under the same name is one file.
///
/// # Errors
/// When the body is too large, stops coming, or is no document.
pub(crate) async fn receive(app: &App, request: Request, name: &str) -> Result<PathBuf> {
    let folder = &app.config().uploads;
    let bounds = &app.config().bounds;
    let name = harmless(name);
    let io = |source| Error::Io {
        path: folder.clone(),
        source,
    };
    fs::create_dir_all(folder).await.map_err(io)?;
    let free = bounds.uploads_bytes.saturating_sub(used_bytes(folder));
    if free == 0 {
        return Err(Error::UploadsFull {
            limit: bounds.uploads_bytes,
        });
    }
    let mut pieces = Pieces::new(request, bounds.upload_bytes.min(free), app)?;
    let partial = Partial(folder.join(format!("{PARTIAL}{}", random_name())));
    let mut file = fs::File::create_new(&partial.0).await.map_err(io)?;
    let mut hasher = blake3::Hasher::new();
    let mut head = Vec::new();
    while let Some(piece) = pieces.next().await? {
        if head.len() < SNIFF_BYTES {
            let wanted = (SNIFF_BYTES - head.len()).min(piece.len());
            head.extend_from_slice(&piece[..wanted]);
            if head.len() == SNIFF_BYTES && sniff(&head).is_none() {
                return Err(Error::MediaType { name });
            }
        }
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(io)?;
    }
    if sniff(&head).is_none() {
        return Err(Error::MediaType { name });
    }
    // The index refers to this file by its path: it must be there after a crash if the document is.
    file.sync_all().await.map_err(io)?;
    drop(file);
    let home = folder.join(&hasher.finalize().to_hex()[..16]);
    fs::create_dir_all(&home).await.map_err(io)?;
    let path = home.join(&name);
    fs::rename(&partial.0, &path).await.map_err(io)?;
    Ok(path)
}

/// Removed when it is dropped, unless it was renamed: a broken upload leaves nothing behind.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        drop(fs_err::remove_file(&self.0));
    }
}

/// The last part of a name, without what some system treats in its own way.
pub(crate) fn harmless(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut kept: String = last
        .chars()
        .map(|c| {
            let special = matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') || c.is_control();
            // Marks that turn the direction of writing make `fdp.exe` look like `exe.pdf`.
            let turns = matches!(c,
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if special || turns { '_' } else { c }
        })
        .collect();
    while kept.len() > LONGEST_NAME {
        // The beginning goes, so that the ending stays.
        kept.remove(0);
    }
    let kept = kept.trim_start_matches('.').trim().trim_end_matches('.');
    if kept.is_empty() {
        "document".to_owned()
    } else {
        kept.to_owned()
    }
}

/// Bytes of all uploaded files.
fn used_bytes(folder: &Path) -> u64 {
    let entries = |folder: &Path| fs_err::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs_err::DirEntry| entry.metadata().map_or(0, |found| found.len());
    entries(folder)
        .map(|entry| {
            if entry.path().is_dir() {
                entries(&entry.path()).map(size).sum()
            } else {
                size(entry)
            }
        })
        .sum()
}

/// Removes an uploaded file that nothing refers to any more; a file that lies elsewhere is left alone.
pub(crate) fn forget(folder: &Path, document: &str) {
    let Ok(folder) = fs_err::canonicalize(folder) else {
        return;
    };
    let path = Path::new(document);
    if path.parent().and_then(Path::parent) == Some(&*folder) {
        drop(fs_err::remove_file(path));
        if let Some(home) = path.parent() {
            // Only where it is empty.
            drop(fs_err::remove_dir(home));
        }
    }
}

/// Removes what uploads that were broken off by a crash have left.
pub(crate) fn clear(folder: &Path) {
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            drop(fs_err::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere() {
        for (given, kept) in [
            ("paper.pdf", "paper.pdf"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("..", "document"),
            (".", "document"),
            ("", "document"),
            ("/", "document"),
            (".ssh", "ssh"),
            ("a\0b\n.pdf", "a_b_.pdf"),
            ("C:evil.pdf", "C_evil.pdf"),
            ("exe.\u{202e}fdp", "exe._fdp"),
            ("Übersicht 2026.pdf", "Übersicht 2026.pdf"),
        ] {
            assert_eq!(harmless(given), kept, "{given:?}");
        }
        let long = harmless(&format!("{}.pdf", "ä".repeat(500)));
        assert!(
            long.len() <= LONGEST_NAME && long.ends_with("ä.pdf"),
            "{long}"
        );
    }

    #[test]
    fn only_uploaded_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs_err::canonicalize(dir.path()).unwrap();
        let uploads = root.join("uploads");
        let ours = uploads.join("0123/paper.pdf");
        let other = root.join("paper.pdf");
        for path in [&ours, &other] {
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        assert_eq!(used_bytes(&uploads), 1);
        forget(&uploads, other.to_str().unwrap());
        forget(&uploads, "/etc/hostname");
        assert!(other.exists() && ours.exists());
        forget(&uploads, ours.to_str().unwrap());
        assert!(!ours.exists() && uploads.exists());
    }
}
