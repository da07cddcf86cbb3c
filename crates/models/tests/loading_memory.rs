//! While weights are read, memory never holds more than they will take and a buffer of a few MiB, in every precision.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use colibri_models::{
    Placement, Precision,
    registry::{Checkpoint, LoadOptions, load_generator},
};
use colibri_testkit::random::{Role, Shape, TINY, write_checkpoint};

/// 60 million values, most of them in matrices of several MiB, as in the large models.
const WIDE: Shape = Shape {
    text: [1024, 4096, 2, 16, 16],
    vocabulary: 8192,
    ..TINY
};

/// Above the packed weights: the tokenizer, the table of rotations, and the buffer.
const ROOM: u64 = 16 << 20;

fn status(key: &str) -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn loading_needs_no_more_than_what_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path(), &WIDE, Role::Generator);
    let checkpoint = Checkpoint {
        folder: folder.path().to_owned(),
        base: None,
    };
    for precision in [Precision::Int4, Precision::Int8, Precision::Bf16] {
        // The kernel forgets its greatest count and begins anew.
        fs_err::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS:");
        let options = LoadOptions::new(Placement::cpu(precision));
        let model = load_generator(&checkpoint, &options).unwrap();
        let (peak, held) = (status("VmHWM:") - before, model.num_bytes() as u64);
        assert!(held > 25 << 20, "{held} in {precision:?}");
        assert!(peak < held + ROOM, "{peak} for {held} in {precision:?}");
    }
}
