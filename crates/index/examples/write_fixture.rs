//! Writes the index that `tests/formats.rs` opens, in today's format:
//! `cargo run -p colibri-index --example write_fixture -- crates/index/tests/fixtures/vN`.
//!
//! Run once when a format version is finished; a fixture is never written again, since its point is that
//! an older program wrote it.

#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .ok_or("usage: write_fixture FOLDER")?;
    let mut writer = colibri_index::Index::create(dir, &support::settings())?;
    support::fill_fixture(&mut writer);
    Ok(())
}
