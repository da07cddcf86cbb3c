//! Tiles that are byte for byte the same go through the tower once, and every place of the prompt gets their tokens.

use candle_core::Tensor;
use colibri_models::{
    Placement, Precision, Result, Trace,
    processor::TileOptions,
    registry::{Checkpoint, LoadOptions},
    retrievers::ColIdefics3,
    vlm::idefics3::Config,
};
use colibri_nn::{Weights, weights::WeightStore};
use colibri_testkit::random::{Role, TINY, write_checkpoint};
use image::{Rgb, RgbImage};

/// What the tower gave, call by call, and the merged prompt.
#[derive(Default)]
struct Watch {
    calls: Vec<Vec<Vec<f32>>>,
    merged: Vec<Vec<f32>>,
}

impl Trace for Watch {
    fn record(&mut self, name: &str, value: &Tensor) -> Result<()> {
        if name == "connector" {
            self.calls.push(value.squeeze(0)?.to_vec2()?);
        } else if name == "merged" {
            self.merged = value.squeeze(0)?.to_vec2()?;
        }
        Ok(())
    }
}

#[test]
fn a_page_of_margins_is_looked_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    write_checkpoint(scratch.path(), &TINY, Role::Retriever);
    let checkpoint = Checkpoint {
        folder: scratch.path().to_owned(),
        base: None,
    };
    let options = LoadOptions::new(Placement::cpu(Precision::F32));
    let config = Config::load(scratch.path()).unwrap();
    let store = WeightStore::open_folder(scratch.path()).unwrap();
    let weights = Weights::new(store.into(), options.placement.clone());
    let model = ColIdefics3::load(&config, &weights, &checkpoint, &options).unwrap();

    // As large as the page is made anyway, so that nothing is blurred over a tile's edge: four by four tiles, ink in one.
    let side = 4 * TINY.tile as u32;
    let page = RgbImage::from_fn(side, side, |x, y| {
        let ink = (80..120).contains(&x) && (70..100).contains(&y);
        Rgb([if ink { 0 } else { 255 }; 3])
    });
    let (mut watch, mut asked) = (Watch::default(), 0);
    let mut on_tile = |_, total| {
        asked += 1;
        assert_eq!(total, 17);
        true
    };
    model
        .embed_page_traced(&page, &TileOptions::default(), &mut on_tile, &mut watch)
        .unwrap();
    assert_eq!(asked, 17, "sixteen tiles and the overview");
    assert_eq!(
        watch.calls.len(),
        3,
        "a blank tile, the inked one, the overview"
    );

    // The first tile is blank, as are fourteen others.
    let places = |tile: &[Vec<f32>]| {
        let windows = watch.merged.windows(tile.len());
        windows.filter(|rows| *rows == tile).count()
    };
    let times: Vec<usize> = watch.calls.iter().map(|tile| places(tile)).collect();
    assert_eq!(times, [15, 1, 1]);
}
