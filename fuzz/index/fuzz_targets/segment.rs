//! Any bytes as a segment file, any place and shape as a record in it.
//!
//! The first 20 bytes choose segment, offset and number of rows; a set lowest bit of the next one puts a
//! sound header before the rest, so that the fuzzer need not guess a checksum to get past it.

#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use colibri_index::stores::{Expected, Extent, LocalStore, Location, Record, VectorStore};
use colibri_index::{FileSystem, MultiVector, PageId};
use libfuzzer_sys::fuzz_target;

const DIM: usize = 4;

/// A folder with one sound segment of two records, and that segment's bytes.
static SOUND: LazyLock<(tempfile::TempDir, PathBuf, Vec<u8>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let storage = Arc::new(FileSystem);
    let mut store =
        LocalStore::open_writer(dir.path(), storage, 1 << 20, &[]).expect("a new store");
    for page in 0..2 {
        let rows = MultiVector::from_f32(DIM, &[0.5; 3 * DIM]).expect("finite rows");
        store.stage(PageId(page), &rows).expect("a staged page");
    }
    store.publish().expect("published pages");
    let path = dir.path().join("segments/00000001.vec");
    let bytes = fs_err::read(&path).expect("the segment just written");
    (dir, path, bytes)
});

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_at_checked(21) else {
        return;
    };
    let (dir, path, sound) = &*SOUND;
    let mut bytes = rest.to_vec();
    match head[20] & 3 {
        1 => bytes
            .splice(..0, sound[..64].iter().copied())
            .for_each(drop),
        2 => {
            // A sound file with some of its bytes changed.
            bytes.clone_from(sound);
            for change in rest.chunks_exact(3) {
                let at = usize::from(change[0]) | usize::from(change[1]) << 8;
                let len = bytes.len();
                bytes[at % len] ^= change[2];
            }
        }
        _ => {}
    }
    if fs_err::write(path, &bytes).is_err() {
        return;
    }
    let store = LocalStore::open(dir.path());
    let wild = Location {
        segment: number(&head[..8]) % 3,
        offset: number(&head[8..16]),
        num_rows: number(&head[16..20]) as u32,
    };
    let near = Location {
        segment: 1,
        offset: 64 * (wild.offset % 16),
        num_rows: wild.num_rows % 8,
    };
    for location in [wild, near] {
        let record = Record {
            page: PageId(1),
            location,
        };
        let _ = store
            .read(record)
            .map(|rows| (rows.num_rows(), rows.to_vec()));
        let _ = store.search(&[1.0; DIM], DIM, &[record], 1);
        let extent = Extent {
            segment: 1,
            dim: DIM as u32,
            num_bytes: wild.offset,
        };
        let expected = Expected {
            record,
            hash: [0; 32],
        };
        store.check(&[extent], &[expected], &mut |_| {});
        // The writer cuts and resumes whatever it finds.
        let extent = Extent {
            num_bytes: near.offset,
            ..extent
        };
        if let Ok(mut writer) =
            LocalStore::open_writer(dir.path(), Arc::new(FileSystem), 1 << 20, &[extent])
        {
            let rows = MultiVector::from_f32(DIM, &[0.25; DIM]).expect("finite rows");
            let location = writer.stage(PageId(9), &rows).expect("room on the disk");
            writer.publish().expect("a disk that syncs");
            let record = Record {
                page: PageId(9),
                location,
            };
            assert_eq!(
                writer
                    .read(record)
                    .expect("what was just written")
                    .as_slice(),
                rows.as_slice()
            );
        }
    }
});
