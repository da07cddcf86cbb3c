//! Values of a JSON object of settings, each checked, with errors that name the file and the key.

use std::path::Path;

use serde_json::{Map, Value};

use super::error::{Error, Result};

/// The keys of one JSON object, with the file's name for errors.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) json: &'a Map<String, Value>,
}

impl Fields<'_> {
    /// The value of `name` as `read` sees it, or `default` where it is absent or null.
    pub(super) fn or<T>(
        &self,
        name: &str,
        default: T,
        read: impl Fn(&Value) -> Result<T>,
    ) -> Result<T> {
        match self.json.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => read(value),
        }
    }

    pub(super) fn bad(&self, key: &'static str, expected: &'static str, found: &Value) -> Error {
        bad(self.path, key, expected, found)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool> {
        self.or(key, default, |value| {
            value
                .as_bool()
                .ok_or_else(|| self.bad(key, "true or false", value))
        })
    }

    /// `longest_edge` of a size object.
    pub(super) fn edge(&self, size: &Value, key: &'static str, greatest: u64) -> Result<u32> {
        match size.get("longest_edge") {
            Some(value) => self.whole(value, key, greatest),
            None => Err(Error::MissingKey {
                path: self.path.to_path_buf(),
                key,
            }),
        }
    }

    pub(super) fn whole(&self, value: &Value, key: &'static str, greatest: u64) -> Result<u32> {
        match value.as_u64() {
            Some(number) if (1..=greatest).contains(&number) => Ok(number as u32),
            Some(0) | None => Err(self.bad(key, "a whole number above 0", value)),
            Some(_) => Err(self.bad(key, "a smaller number", value)),
        }
    }

    pub(super) fn positive(&self, value: &Value, key: &'static str) -> Result<f64> {
        value
            .as_f64()
            .filter(|number| (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(number))
            .ok_or_else(|| self.bad(key, "a number above 0", value))
    }

    /// One number for all channels or one for each, each finite as f32.
    pub(super) fn channels(
        &self,
        value: &Value,
        key: &'static str,
        expected: &'static str,
        valid: impl Fn(f32) -> bool,
    ) -> Result<[f64; 3]> {
        let number = |value: &Value| {
            value.as_f64().filter(|&number| {
                let narrow = number as f32;
                narrow.is_finite() && valid(narrow)
            })
        };
        let read = match value.as_array().map(Vec::as_slice) {
            Some([red, green, blue]) => {
                let channels = [number(red), number(green), number(blue)];
                match channels {
                    [Some(red), Some(green), Some(blue)] => Some([red, green, blue]),
                    _ => None,
                }
            }
            Some(_) => None,
            None => number(value).map(|number| [number; 3]),
        };
        read.ok_or_else(|| self.bad(key, expected, value))
    }
}

pub(super) fn object<'a>(
    path: &Path,
    key: &'static str,
    json: &'a Value,
) -> Result<&'a Map<String, Value>> {
    json.as_object()
        .ok_or_else(|| bad(path, key, "a JSON object", json))
}

fn bad(path: &Path, key: &'static str, expected: &'static str, found: &Value) -> Error {
    const SHOWN: usize = 60;
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(SHOWN) {
        found.truncate(cut);
        found.push('…');
    }
    Error::BadValue {
        path: path.to_path_buf(),
        key,
        expected,
        found,
    }
}
