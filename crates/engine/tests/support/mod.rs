//! Models of a run without a network, made of noise.

use std::path::{Path, PathBuf};

use colibri_engine::{
    KeptFeatures,
    checkpoints::{Choice, ModelConfig, Models, PrecisionChoice},
    hub::HubConfig,
    index::Index,
    ingest::{IngestOptions, ingest},
    picture::{RgbImage, save_png},
};
use colibri_testkit::random::{Role, TINY, write_checkpoint};

/// The model in a folder.
pub(crate) fn named(folder: &Path) -> Choice {
    Choice::Named(folder.to_str().unwrap().to_owned())
}

/// A retriever and a generator over one base, in folders of these names below `folder`.
pub(crate) fn write_pair(folder: &Path) {
    write_checkpoint(&folder.join("retriever"), &TINY, Role::Retriever);
    write_checkpoint(&folder.join("generator"), &TINY, Role::Generator);
}

/// That pair, in single precision and without a cache of what is seen; `change` says what is otherwise.
pub(crate) fn models(folder: &Path, change: impl FnOnce(&mut ModelConfig)) -> Models {
    let mut hub = HubConfig::new(folder.join("hub"));
    hub.offline = true;
    let mut config = ModelConfig {
        packed_dir: Some(folder.join("packed")),
        retriever: named(&folder.join("retriever")),
        generator: named(&folder.join("generator")),
        precision: PrecisionChoice::F32,
        features: KeptFeatures::none(),
        ..ModelConfig::new(hub, folder.join("cache"))
    };
    change(&mut config);
    Models::new(config)
}

/// Pages as pictures in a folder, no two alike.
pub(crate) fn write_pages(folder: &Path, count: u8) -> PathBuf {
    fs_err::create_dir_all(folder).unwrap();
    for page in 0..count {
        let image = RgbImage::from_fn(120, 160, |x, y| {
            image::Rgb([(x * 2) as u8, (y + u32::from(page) * 90) as u8, page])
        });
        save_png(&image, &folder.join(format!("{page}.png"))).unwrap();
    }
    folder.to_owned()
}

/// An index of documents.
pub(crate) fn index(dir: &Path, documents: &Path, models: &Models) -> Index {
    let retriever = models.retriever(None, &|_| {}).unwrap();
    ingest(
        dir,
        &[documents.to_owned()],
        retriever.as_ref(),
        &IngestOptions::default(),
        &std::sync::atomic::AtomicBool::new(false),
        &mut |_| {},
    )
    .unwrap();
    Index::open(dir).unwrap()
}
