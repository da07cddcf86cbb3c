//! `preprocessor_config.json`: what a picture becomes.
//!
//! Files leave out what equals the class default of transformers 5.23 (`Idefics3ImageProcessor`),
//! and newer ones nest the picture settings in `processor_config.json` under `image_processor`
//! (which then wins, as in transformers). Every value is checked here, so that the code behind may
//! divide and allocate by it.

use std::path::Path;

use serde_json::Value;

use super::error::{Error, Result};
use super::fields::{Fields, object};
use super::files::{JsonFile, ProcessorFiles, json_in};
use super::resample::Filter;

/// Greatest side of a tile accepted, in pixels: eight times the largest in use.
const MAX_TILE_SIDE: u64 = 4096;

/// Greatest `size.longest_edge` accepted; whatever is above 4096 is cut to that anyway.
const MAX_LONGEST_EDGE: u64 = 1 << 16;

/// What a picture becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Frames {
    /// Square tiles and an overview (Idefics3).
    #[default]
    Tiles,
    /// One square, whatever the picture's shape (PaliGemma). The square is `tile_side`; there is no first resize.
    Square,
    /// The picture's own shape between two bounds, in quarters and whole where it is split (Idefics2).
    Native {
        /// `size.shortest_edge`: no side is shorter, in pixels.
        shortest_edge: u32,
    },
}

/// Pages are drawn for a square of `s` pixels with a longest edge of `4 s` at most: three times the square is about
/// what 150 dots an inch give for 448, and the filter needs more than it keeps.
const SQUARES_DRAWN: u32 = 4;

/// How pictures are made into tiles.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessorConfig {
    /// What a picture becomes.
    pub frames: Frames,
    /// `size.longest_edge`: the longer side after the first resize, in pixels.
    pub longest_edge: u32,
    /// `most_enlarged`: a picture is made at most so many times as large by the first resize, where
    /// the file says so. Ours: transformers enlarges every small picture to `longest_edge`, at which
    /// a model that only ever saw whole pages at that size cannot read it.
    pub most_enlarged: Option<u32>,
    /// `max_image_size.longest_edge`: the side of a tile, in pixels.
    pub tile_side: u32,
    /// Whether a picture is cut into tiles, with an overview behind them.
    pub do_image_splitting: bool,
    /// Whether the first resize, to `longest_edge`, happens.
    pub do_resize: bool,
    /// The resampling filter.
    pub resample: Filter,
    /// Whether samples are multiplied by `rescale_factor`.
    pub do_rescale: bool,
    /// Usually 1/255.
    pub rescale_factor: f64,
    /// Whether the mean is subtracted and the result divided by the deviation.
    pub do_normalize: bool,
    /// Mean of each channel.
    pub image_mean: [f64; 3],
    /// Standard deviation of each channel.
    pub image_std: [f64; 3],
    /// Kept as read: pictures come in as RGB here, whatever it says.
    pub do_convert_rgb: bool,
    /// How SmolVLM2 samples videos, where the file says so.
    pub video_sampling: Option<VideoSampling>,
}

/// `video_sampling` of SmolVLM2 checkpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoSampling {
    /// Frames a second.
    pub fps: f64,
    /// Greatest number of frames.
    pub max_frames: u32,
    /// `video_size.longest_edge`: the longer side of a frame, in pixels.
    pub longest_edge: u32,
}

impl Default for PreprocessorConfig {
    /// The class defaults of transformers 5.23.
    fn default() -> Self {
        Self {
            frames: Frames::Tiles,
            longest_edge: 4 * 364,
            most_enlarged: None,
            tile_side: 364,
            do_image_splitting: true,
            do_resize: true,
            resample: Filter::Lanczos,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            do_convert_rgb: true,
            video_sampling: None,
        }
    }
}

impl PreprocessorConfig {
    /// The class defaults of `SiglipImageProcessor`.
    pub fn square() -> Self {
        Self {
            frames: Frames::Square,
            longest_edge: SQUARES_DRAWN * 224,
            tile_side: 224,
            do_image_splitting: false,
            resample: Filter::Bicubic,
            ..Self::default()
        }
    }

    /// The class defaults of `Idefics2ImageProcessor`.
    pub fn native() -> Self {
        Self {
            frames: Frames::Native { shortest_edge: 378 },
            longest_edge: 980,
            tile_side: 980,
            do_image_splitting: false,
            resample: Filter::Bilinear,
            ..Self::default()
        }
    }

    /// Reads the picture settings of a checkpoint of the Idefics3 family. Each folder is asked for both files before
    /// the next one is.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Read`], [`Error::Json`], [`Error::BadValue`].
    pub fn load(files: &ProcessorFiles) -> Result<Self> {
        Self::load_over(files, &Self::default())
    }

    /// [`PreprocessorConfig::load`] for a family with the class defaults `default`.
    ///
    /// # Errors
    /// As there.
    pub fn load_over(files: &ProcessorFiles, default: &Self) -> Result<Self> {
        const FILE: &str = "preprocessor_config.json";
        for dir in files.dirs() {
            if let Some(JsonFile { path, value }) = json_in(dir, "processor_config.json")?
                && let Some(nested) = value
                    .get("image_processor")
                    .filter(|value| !value.is_null())
            {
                return Self::from_json_over(&path, nested, default);
            }
            if let Some(JsonFile { path, value }) = json_in(dir, FILE)? {
                return Self::from_json_over(&path, &value, default);
            }
        }
        Err(Error::MissingFile {
            file: FILE,
            dirs: files.dir_list(),
        })
    }

    /// Reads the settings of the Idefics3 family from JSON that came from `path`.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a value of the wrong kind or outside its range.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self> {
        Self::from_json_over(path, json, &Self::default())
    }

    fn from_json_over(path: &Path, json: &Value, default: &Self) -> Result<Self> {
        let file = Fields {
            path,
            json: object(path, "(the whole file)", json)?,
        };
        let tile_side =
            |value: &Value| file.edge(value, "max_image_size.longest_edge", MAX_TILE_SIDE);
        let sizes = match default.frames {
            Frames::Tiles => Sizes {
                frames: Frames::Tiles,
                longest_edge: file.or("size", default.longest_edge, |value| {
                    file.edge(value, "size.longest_edge", MAX_LONGEST_EDGE)
                })?,
                tile_side: file.or("max_image_size", default.tile_side, tile_side)?,
            },
            Frames::Square => {
                file.or("size", default.sizes(), |value| Sizes::square(&file, value))?
            }
            Frames::Native { .. } => {
                file.or("size", default.sizes(), |value| Sizes::native(&file, value))?
            }
        };
        let resample = |value: &Value| value.as_u64().and_then(Filter::from_pillow);
        Ok(Self {
            frames: sizes.frames,
            longest_edge: sizes.longest_edge,
            most_enlarged: file.or("most_enlarged", default.most_enlarged, |value| {
                file.whole(value, "most_enlarged", MAX_LONGEST_EDGE)
                    .map(Some)
            })?,
            tile_side: sizes.tile_side,
            do_image_splitting: file.flag("do_image_splitting", default.do_image_splitting)?,
            do_resize: file.flag("do_resize", default.do_resize)?,
            resample: file.or("resample", default.resample, |value| {
                let expected = "1 (LANCZOS), 2 (BILINEAR) or 3 (BICUBIC)";
                resample(value).ok_or_else(|| file.bad("resample", expected, value))
            })?,
            do_rescale: file.flag("do_rescale", default.do_rescale)?,
            rescale_factor: file.or("rescale_factor", default.rescale_factor, |value| {
                file.positive(value, "rescale_factor")
            })?,
            do_normalize: file.flag("do_normalize", default.do_normalize)?,
            image_mean: file.or("image_mean", default.image_mean, |value| {
                file.channels(value, "image_mean", "one or three numbers", |_| true)
            })?,
            image_std: file.or("image_std", default.image_std, |value| {
                let expected = "one or three numbers above 0";
                file.channels(value, "image_std", expected, |value| {
                    value >= f32::MIN_POSITIVE
                })
            })?,
            do_convert_rgb: file.flag("do_convert_rgb", default.do_convert_rgb)?,
            video_sampling: file.or("video_sampling", None, |value| {
                video_sampling(path, value).map(Some)
            })?,
        })
    }
}

/// What `size` and `max_image_size` say.
#[derive(Clone, Copy)]
struct Sizes {
    frames: Frames,
    longest_edge: u32,
    tile_side: u32,
}

impl PreprocessorConfig {
    fn sizes(&self) -> Sizes {
        Sizes {
            frames: self.frames,
            longest_edge: self.longest_edge,
            tile_side: self.tile_side,
        }
    }
}

fn video_sampling(path: &Path, json: &Value) -> Result<VideoSampling> {
    let file = Fields {
        path,
        json: object(path, "video_sampling", json)?,
    };
    let missing = |key| Error::MissingKey {
        path: path.to_path_buf(),
        key,
    };
    let get = |name, key| file.json.get(name).ok_or_else(|| missing(key));
    let size = get("video_size", "video_sampling.video_size")?;
    let frames = get("max_frames", "video_sampling.max_frames")?;
    Ok(VideoSampling {
        fps: file.positive(get("fps", "video_sampling.fps")?, "video_sampling.fps")?,
        max_frames: file.whole(frames, "video_sampling.max_frames", MAX_LONGEST_EDGE)?,
        longest_edge: file.edge(
            size,
            "video_sampling.video_size.longest_edge",
            MAX_LONGEST_EDGE,
        )?,
    })
}

impl Sizes {
    /// `height` and `width` of a size object, which must be equal; older files have a bare number.
    fn square(file: &Fields<'_>, size: &Value) -> Result<Self> {
        let side = |name, key| file.whole(size.get(name).unwrap_or(size), key, MAX_TILE_SIDE);
        let (height, width) = (side("height", "size.height")?, side("width", "size.width")?);
        if height != width {
            return Err(file.bad("size", "a square", size));
        }
        Ok(Self {
            frames: Frames::Square,
            longest_edge: SQUARES_DRAWN * height,
            tile_side: height,
        })
    }

    /// `shortest_edge` and `longest_edge` of a size object.
    fn native(file: &Fields<'_>, size: &Value) -> Result<Self> {
        let longest_edge = file.edge(size, "size.longest_edge", MAX_TILE_SIDE)?;
        let Some(shortest) = size.get("shortest_edge") else {
            return Err(Error::MissingKey {
                path: file.path.to_path_buf(),
                key: "size.shortest_edge",
            });
        };
        Ok(Self {
            frames: Frames::Native {
                shortest_edge: file.whole(shortest, "size.shortest_edge", MAX_TILE_SIDE)?,
            },
            longest_edge,
            tile_side: longest_edge,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> Result<PreprocessorConfig> {
        PreprocessorConfig::from_json(Path::new("some/preprocessor_config.json"), &json)
    }

    #[test]
    fn an_empty_object_gives_the_class_defaults() {
        assert_eq!(read(json!({})).unwrap(), PreprocessorConfig::default());
        let nulls = json!({"size": null, "resample": null, "do_convert_rgb": null});
        assert_eq!(read(nulls).unwrap(), PreprocessorConfig::default());
    }

    #[test]
    fn every_value_is_read() {
        let config = read(json!({
            "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512},
            "most_enlarged": 2, "do_image_splitting": false, "do_resize": false, "resample": 3, "do_rescale": false,
            "rescale_factor": 0.5, "do_normalize": false, "image_mean": [0.1, 0.2, 0.3],
            "image_std": 0.25, "do_convert_rgb": false,
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 384}},
        }));
        let expected = PreprocessorConfig {
            frames: Frames::Tiles,
            longest_edge: 2048,
            most_enlarged: Some(2),
            tile_side: 512,
            do_image_splitting: false,
            do_resize: false,
            resample: Filter::Bicubic,
            do_rescale: false,
            rescale_factor: 0.5,
            do_normalize: false,
            image_mean: [0.1, 0.2, 0.3],
            image_std: [0.25; 3],
            do_convert_rgb: false,
            video_sampling: Some(VideoSampling {
                fps: 1.0,
                max_frames: 64,
                longest_edge: 384,
            }),
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn squares_and_native_frames_have_sizes_of_their_own() {
        let path = Path::new("some/preprocessor_config.json");
        let read = |json: Value, default: &PreprocessorConfig| {
            PreprocessorConfig::from_json_over(path, &json, default)
        };
        let square = PreprocessorConfig::square();
        let found = read(json!({"size": {"height": 448, "width": 448}}), &square).unwrap();
        assert_eq!((found.tile_side, found.longest_edge), (448, 1792));
        assert_eq!(found.resample, Filter::Bicubic);
        assert_eq!(read(json!({}), &square).unwrap(), square);
        for size in [
            json!({"height": 448, "width": 224}),
            json!({"height": 448}),
            json!(0),
        ] {
            assert!(read(json!({"size": size}), &square).is_err());
        }
        let native = PreprocessorConfig::native();
        let sizes = json!({"size": {"longest_edge": 64, "shortest_edge": 24}});
        let found = read(sizes, &native).unwrap();
        assert_eq!(
            (found.longest_edge, found.frames),
            (64, Frames::Native { shortest_edge: 24 })
        );
        assert!(read(json!({"size": {"longest_edge": 64}}), &native).is_err());
    }

    #[test]
    fn hostile_values_name_file_and_key() {
        let cases = [
            (json!({"size": {"longest_edge": 0}}), "size.longest_edge"),
            (
                json!({"size": {"longest_edge": -2048}}),
                "size.longest_edge",
            ),
            (json!({"size": {"longest_edge": 20.5}}), "size.longest_edge"),
            (
                json!({"size": {"longest_edge": u64::MAX}}),
                "size.longest_edge",
            ),
            (
                json!({"size": {"height": 448, "width": 448}}),
                "size.longest_edge",
            ),
            (json!({"size": 5}), "size.longest_edge"),
            (
                json!({"max_image_size": {"longest_edge": 0}}),
                "max_image_size.longest_edge",
            ),
            (
                json!({"max_image_size": {"longest_edge": 5000}}),
                "max_image_size.longest_edge",
            ),
            (
                json!({"max_image_size": {"longest_edge": "512"}}),
                "max_image_size.longest_edge",
            ),
            (json!({"resample": 0}), "resample"),
            (json!({"resample": -1}), "resample"),
            (json!({"resample": "lanczos"}), "resample"),
            (json!({"do_resize": 1}), "do_resize"),
            (json!({"rescale_factor": 0}), "rescale_factor"),
            (json!({"rescale_factor": 1e300}), "rescale_factor"),
            (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
            (json!({"image_std": 1e-320}), "image_std"),
            (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
            (json!({"image_mean": 1e39}), "image_mean"),
            (json!({"video_sampling": {}}), "video_sampling.video_size"),
            (json!({"video_sampling": 3}), "video_sampling"),
            (json!([1, 2]), "(the whole file)"),
        ];
        for (json, key) in cases {
            let message = read(json.clone()).unwrap_err().to_string();
            assert!(
                message.contains("`some/preprocessor_config.json`"),
                "{message}"
            );
            assert!(message.contains(&format!("`{key}`")), "{json}: {message}");
        }
    }

    #[test]
    fn a_long_value_is_shortened() {
        let message = read(json!({"resample": "é".repeat(500)}))
            .unwrap_err()
            .to_string();
        assert!(message.len() < 300, "{message}");
    }
}
