//! `tojson` as transformers overrides it in templates: Python's `json.dumps(ensure_ascii=False)`,
//! which unlike Jinja's own filter escapes nothing for HTML.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Spaces of an indentation step accepted.
const MAX_INDENT: usize = 16;

/// Levels of nesting accepted, so that no value exhausts the stack.
const MAX_DEPTH: usize = 100;

/// The filter. Of the keyword arguments `indent` changes the result; maps are in the order in which
/// minijinja keeps them, which is sorted.
pub(super) fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut writer = Writer {
        out: String::new(),
        indent: indent.map(|width| " ".repeat(width.min(MAX_INDENT))),
    };
    writer.value(&value, 0)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    indent: Option<String>,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(failed("nested too deeply for JSON"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', &items, depth, |writer, item| {
                    writer.value(item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let keys: Vec<Value> = value.try_iter()?.collect();
                self.list('{', '}', &keys, depth, |writer, key| {
                    writer.string(&key.to_string());
                    writer.out.push_str(": ");
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            // The enum is not exhaustive; these and whatever comes have no JSON form.
            ValueKind::Undefined | ValueKind::Bytes | ValueKind::Plain | ValueKind::Invalid | _ => {
                return Err(failed("a value that has no JSON form"));
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        depth: usize,
        write: impl Fn(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.out
                    .push_str(if self.indent.is_some() { "," } else { ", " });
            }
            self.line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// A new line with its indentation, where there is any.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out
            .push_str(&serde_json::Value::from(text).to_string());
    }
}

fn failed(reason: &'static str) -> Error {
    Error::new(ErrorKind::BadSerialization, reason)
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    use super::*;

    #[test]
    fn json_as_python_writes_it() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", to_json);
        let value = context! { value => vec![context! { a => "<é> \"q\"", b => vec![1, 2] }] };
        let render = |source: &str| environment.render_str(source, &value).unwrap();
        // json.dumps([{"a": "<é> \"q\"", "b": [1, 2]}], ensure_ascii=False)
        assert_eq!(
            render("{{ value | tojson }}"),
            r#"[{"a": "<é> \"q\"", "b": [1, 2]}]"#
        );
        // json.dumps([1, {"a": [], "b": None}, True, 1.5], indent=2)
        assert_eq!(
            render("{{ [1, {'a': [], 'b': none}, true, 1.5] | tojson(indent=2) }}"),
            "[\n  1,\n  {\n    \"a\": [],\n    \"b\": null\n  },\n  true,\n  1.5\n]"
        );
        assert!(
            environment
                .render_str("{{ missing | tojson }}", ())
                .is_err()
        );
    }
}
