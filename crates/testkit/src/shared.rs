//! Material beside the checkout that tests may read but the project does not contain.

use std::path::{Path, PathBuf};

/// The file or folder `relative` below `shared/` beside the checkout. Where it is absent, says which test
/// is skipped and gives `None`.
pub fn find(relative: &str, test: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3)?;
    let path = root.join("shared").join(relative);
    if path.exists() {
        return Some(path);
    }
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    {
        eprintln!("skipped: {test} needs `shared/{relative}` beside the checkout");
    }
    None
}
