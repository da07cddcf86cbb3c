//! Filters on path and metadata, applied before anything is scored.
//!
//! An expression is `KEY OP VALUE`, with the operators `=`, `!=`, `<`, `<=`, `>`, `>=`, `~` (matches a glob
//! pattern) and `!~`. Several expressions must all hold. `path`, `name` (of the file), `title`, `kind` and
//! `size` are what the index knows itself; any other key is looked up in the document's metadata, `meta.KEY`
//! there only, and a dot goes down into nested objects. Where both sides are numbers they are compared as
//! numbers, else as text, so that dates written `2024-05-31` compare as dates. Of a list it is enough that
//! one element matches. A key the document lacks satisfies `!=` and `!~` only.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::record::DocumentRecord;

/// Longer patterns are refused: their automaton could grow large.
const MAX_PATTERN_BYTES: usize = 1024;

/// Why an expression is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no operator in it.
    #[error("there is no operator (=, !=, <, <=, >, >=, ~, !~) in it")]
    NoOperator,
    /// Nothing stands before the operator.
    #[error("there is no key before the operator")]
    NoKey,
    /// Nothing stands after an operator that needs a value.
    #[error("there is no value after the operator")]
    NoValue,
    /// The pattern after `~` is wrong.
    #[error("the pattern `{pattern}` is not valid: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Clone, Debug)]
enum Test {
    Equal,
    Less { or_equal: bool },
    Greater { or_equal: bool },
    Glob(Box<GlobMatcher>),
}

/// One expression.
#[derive(Clone, Debug)]
struct Condition {
    key: String,
    test: Test,
    negated: bool,
    value: String,
}

/// Expressions that must all hold; an empty filter lets everything through.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    conditions: Vec<Condition>,
    /// Only documents at one of these paths, where given.
    paths: Option<BTreeSet<String>>,
}

impl Filter {
    /// A filter of one expression.
    ///
    /// # Errors
    /// [`Error::Filter`] with the expression and what is wrong with it.
    pub fn parse(expression: &str) -> Result<Self> {
        Self::parse_all([expression])
    }

    /// A filter of several expressions, all of which must hold.
    ///
    /// # Errors
    /// [`Error::Filter`] with the first wrong expression.
    pub fn parse_all<S: AsRef<str>>(expressions: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut filter = Self::default();
        for expression in expressions {
            let expression = expression.as_ref();
            let condition = Condition::parse(expression).map_err(|source| Error::Filter {
                expression: expression.to_owned(),
                source,
            })?;
            filter.conditions.push(condition);
        }
        Ok(filter)
    }

    /// A filter that lets only the document at exactly this path through.
    pub fn path_is(path: &str) -> Self {
        let condition = Condition {
            key: "path".to_owned(),
            test: Test::Equal,
            negated: false,
            value: path.to_owned(),
        };
        Self {
            conditions: vec![condition],
            paths: None,
        }
    }

    /// A filter that lets only the documents at exactly these paths through.
    pub fn paths_are<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Self {
        Self {
            conditions: Vec::new(),
            paths: Some(paths.into_iter().map(Into::into).collect()),
        }
    }

    /// Both filters must hold.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.conditions.extend(other.conditions);
        self.paths = match (self.paths, other.paths) {
            (Some(own), Some(other)) => Some(own.intersection(&other).cloned().collect()),
            (own, other) => own.or(other),
        };
        self
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.paths.is_none()
    }

    /// Whether the document passes.
    pub fn matches(&self, document: &DocumentRecord) -> bool {
        self.paths
            .as_ref()
            .is_none_or(|paths| paths.contains(&document.path))
            && self
                .conditions
                .iter()
                .all(|condition| condition.holds(document))
    }
}

impl Condition {
    fn parse(expression: &str) -> std::result::Result<Self, FilterError> {
        let at = expression
            .find(['=', '!', '<', '>', '~'])
            .ok_or(FilterError::NoOperator)?;
        let (key, rest) = expression.split_at(at);
        let operators = ["!=", "!~", "<=", ">=", "==", "=", "<", ">", "~"];
        let operator = operators
            .into_iter()
            .find(|operator| rest.starts_with(operator))
            .ok_or(FilterError::NoOperator)?;
        let key = key.trim();
        if key.is_empty() {
            return Err(FilterError::NoKey);
        }
        let value = unquoted(rest[operator.len()..].trim());
        let (test, negated) = match operator {
            "!=" => (Test::Equal, true),
            "!~" => (Test::Glob(Box::new(glob(value)?)), true),
            "~" => (Test::Glob(Box::new(glob(value)?)), false),
            "<" => (Test::Less { or_equal: false }, false),
            "<=" => (Test::Less { or_equal: true }, false),
            ">" => (Test::Greater { or_equal: false }, false),
            ">=" => (Test::Greater { or_equal: true }, false),
            _ => (Test::Equal, false),
        };
        if value.is_empty() && !matches!(test, Test::Equal) {
            return Err(FilterError::NoValue);
        }
        Ok(Self {
            key: key.to_owned(),
            test,
            negated,
            value: value.to_owned(),
        })
    }

    fn holds(&self, document: &DocumentRecord) -> bool {
        let found = match self.key.as_str() {
            "path" => self.test(&document.path),
            "name" => self.test(document.path.rsplit(['/', '\\']).next().unwrap_or_default()),
            "title" => self.test(&document.title),
            "kind" => self.test(&document.kind),
            "size" => self.test(&document.size_bytes.to_string()),
            key => {
                let key = key.strip_prefix("meta.").unwrap_or(key);
                lookup(&document.metadata, key).is_some_and(|value| self.any(value))
            }
        };
        found != self.negated
    }

    /// Whether a value of the metadata, or one of a list of them, passes.
    fn any(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().any(|value| self.any(value)),
            Value::String(text) => self.test(text),
            Value::Number(number) => self.test(&number.to_string()),
            Value::Bool(flag) => self.test(if *flag { "true" } else { "false" }),
            Value::Null => self.test("null"),
            Value::Object(_) => false,
        }
    }

    fn test(&self, found: &str) -> bool {
        use std::cmp::Ordering;
        let ordering = || match (number(found), number(&self.value)) {
            (Some(found), Some(asked)) => found.partial_cmp(&asked),
            // "unknown" is neither before nor after 2020, but "2024-05-31" is after "2024".
            _ if starts_with_digit(found) == starts_with_digit(&self.value) => {
                Some(found.cmp(self.value.as_str()))
            }
            _ => None,
        };
        match &self.test {
            Test::Equal => match (number(found), number(&self.value)) {
                (Some(found), Some(asked)) => found == asked,
                _ => found == self.value,
            },
            Test::Less { or_equal } => ordering().is_some_and(|ordering| {
                ordering == Ordering::Less || *or_equal && ordering == Ordering::Equal
            }),
            Test::Greater { or_equal } => ordering().is_some_and(|ordering| {
                ordering == Ordering::Greater || *or_equal && ordering == Ordering::Equal
            }),
            Test::Glob(glob) => glob.is_match(found),
        }
    }
}

/// The value of a key: as it stands, else with each dot going down one object.
fn lookup<'a>(metadata: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    if let Some(value) = metadata.get(key) {
        return Some(value);
    }
    let mut parts = key.split('.');
    let first = metadata.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.as_object()?.get(part))
}

fn glob(pattern: &str) -> std::result::Result<GlobMatcher, FilterError> {
    let fault = |reason: String| FilterError::Pattern {
        pattern: pattern.chars().take(80).collect(),
        reason,
    };
    if pattern.is_empty() {
        return Err(FilterError::NoValue);
    }
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(fault(format!(
            "it is longer than {MAX_PATTERN_BYTES} bytes"
        )));
    }
    // `*` also matches `/`: "*.pdf" means every PDF, wherever it is.
    let glob = GlobBuilder::new(pattern).literal_separator(false).build();
    glob.map(|glob| glob.compile_matcher())
        .map_err(|error| fault(error.kind().to_string()))
}

/// A finite number written with digits; not "inf" or "nan", which are words here.
fn number(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['-', '+', '.']);
    if !starts_with_digit(digits) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document() -> DocumentRecord {
        let metadata = serde_json::json!({
            "year": 2023, "status": "final", "tags": ["tax", "draft"], "date": "2024-05-31",
            "author": {"name": "Ada"}, "reviewed": true, "ratio": "0.50", "path": "elsewhere", "note": null
        });
        DocumentRecord {
            path: "/papers/2023/dpr.pdf".to_owned(),
            kind: "pdf".to_owned(),
            size_bytes: 5000,
            metadata: metadata.as_object().unwrap().clone(),
            ..DocumentRecord::default()
        }
    }

    #[test]
    fn expressions_hold_or_not() {
        let document = document();
        for (expression, expected) in [
            ("year=2023", true),
            ("year = 2023.0", true),
            ("year>2022", true),
            ("year>=2024", false),
            ("year<1e4", true),
            ("status=final", true),
            ("status!=final", false),
            ("status='final'", true),
            ("status>2020", false),
            ("tags=tax", true),
            ("tags!=tax", false),
            ("tags~d*", true),
            ("date>2024", true),
            ("date<2024-06-01", true),
            ("author.name=Ada", true),
            ("author=Ada", false),
            ("reviewed=true", true),
            ("ratio=0.5", true),
            ("note=null", true),
            ("missing=x", false),
            ("missing!=x", true),
            ("missing!~*", true),
            ("missing<5", false),
            ("path~*.pdf", true),
            ("path~/papers/*", true),
            ("path!~*/drafts/*", true),
            ("path=elsewhere", false),
            ("meta.path=elsewhere", true),
            ("name=dpr.pdf", true),
            ("kind=pdf", true),
            ("size>4999", true),
        ] {
            let found = Filter::parse(expression).unwrap().matches(&document);
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn all_expressions_must_hold() {
        let document = document();
        assert!(
            Filter::parse_all(["year=2023", "kind=pdf"])
                .unwrap()
                .matches(&document)
        );
        assert!(
            !Filter::parse_all(["year=2023", "kind=png"])
                .unwrap()
                .matches(&document)
        );
        assert!(Filter::default().matches(&document));
        assert!(Filter::path_is("/papers/2023/dpr.pdf").matches(&document));
    }

    #[test]
    fn wrong_expressions_say_why() {
        for (expression, expected) in [
            ("year", FilterError::NoOperator),
            ("year!2023", FilterError::NoOperator),
            ("=2023", FilterError::NoKey),
            ("year>", FilterError::NoValue),
            ("path~", FilterError::NoValue),
        ] {
            match Filter::parse(expression) {
                Err(Error::Filter { source, .. }) => assert_eq!(source, expected, "{expression}"),
                other => panic!("{expression}: {other:?}"),
            }
        }
        assert!(matches!(
            Filter::parse("path~[a"),
            Err(Error::Filter {
                source: FilterError::Pattern { .. },
                ..
            })
        ));
        assert!(Filter::parse(&format!("path~{}", "{a,".repeat(1000))).is_err());
    }

    proptest! {
        #[test]
        fn any_expression_is_read_without_a_panic(expression in "\\PC{0,40}", key in "[a-z.]{1,8}", op in "[=!<>~]{1,2}") {
            for expression in [expression.clone(), format!("{key}{op}{expression}")] {
                if let Ok(filter) = Filter::parse(&expression) {
                    filter.matches(&document());
                }
            }
        }
    }
}
