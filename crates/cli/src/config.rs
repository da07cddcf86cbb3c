//! The configuration file: defaults for options, by their long names.
//!
//! What the file says becomes the default of the argument, so that clap's own order holds: a flag, then the
//! environment, then the file, then what is built in. A key that is no option, or a value the option
//! cannot have, is an error that names file and key: a misspelt setting that does nothing is worse.

use std::{
    any::TypeId,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ErrorKind},
};
use toml::{Table, Value};

use crate::{
    error::{Error, Result},
    places,
};

/// Options that make no sense in the file.
const NOT_IN_FILE: [&str; 3] = ["config", "help", "version"];

/// A configuration is small; more is another file.
const MAX_BYTES: u64 = 1 << 20;

/// Gives `command` the defaults of the file `named`, or of the usual one if it is there.
///
/// # Errors
/// When the file cannot be read or does not fit the options.
pub(crate) fn apply(command: Command, named: Option<PathBuf>) -> Result<Command> {
    let path = match named {
        Some(path) => path,
        None => match places::default_config() {
            Ok(path) if path.is_file() => path,
            _ => return Ok(command),
        },
    };
    let length = fs_err::metadata(&path)
        .map_err(Error::input("read the configuration"))?
        .len();
    if length > MAX_BYTES {
        let reason = format!("it has {length} bytes, more than {MAX_BYTES}");
        return Err(Error::ConfigFile { path, reason });
    }
    let text = fs_err::read_to_string(&path).map_err(Error::input("read the configuration"))?;
    let table: Table = text.parse().map_err(|error| Error::ConfigFile {
        path: path.clone(),
        reason: placed(&error, &text),
    })?;
    table
        .into_iter()
        .try_fold(command, |command, (key, value)| {
            set(command, &path, &key, &value)
        })
}

/// A syntax error with its line.
fn placed(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message();
    line.map_or_else(
        || message.to_owned(),
        |line| format!("line {line}: {message}"),
    )
}

/// Gives one option its default, in every command that has it.
fn set(mut command: Command, path: &Path, key: &str, value: &Value) -> Result<Command> {
    let wanted = |arg: &&Arg| arg.get_long() == Some(key) && !NOT_IN_FILE.contains(&key);
    let mut places: Vec<(Option<String>, Arg)> = Vec::new();
    if let Some(arg) = command.get_arguments().find(wanted) {
        places.push((None, arg.clone()));
    }
    for subcommand in command.get_subcommands() {
        if let Some(arg) = subcommand.get_arguments().find(wanted) {
            places.push((Some(subcommand.get_name().to_owned()), arg.clone()));
        }
    }
    let Some((_, arg)) = places.first() else {
        return Err(Error::ConfigKey {
            path: path.to_owned(),
            key: key.to_owned(),
        });
    };
    let fault = |expected: String| Error::ConfigValue {
        path: path.to_owned(),
        key: key.to_owned(),
        expected,
        found: shown(value),
    };
    let values = values(arg, value).map_err(|expected| fault(expected.to_owned()))?;
    if values.is_empty() {
        return Ok(command);
    }
    if !matches!(arg.get_action(), ArgAction::SetTrue)
        && let Some(reason) = refusal(&command, places[0].0.as_deref(), key, &values)
    {
        return Err(fault(reason));
    }
    for (subcommand, arg) in places {
        let id = arg.get_id().as_str().to_owned();
        let default = values.clone();
        command = match subcommand {
            None => command.mut_arg(id, |arg| arg.default_values(default)),
            Some(name) => command.mut_subcommand(name, |sub| {
                sub.mut_arg(id, |arg| arg.default_values(default))
            }),
        };
    }
    Ok(command)
}

/// The values as they would stand on the command line, or what should stand there.
fn values(arg: &Arg, value: &Value) -> Result<Vec<String>, &'static str> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        // A flag that is not set is as if it was not mentioned.
        let is_set = value.as_bool().ok_or("true or false")?;
        return Ok(is_set.then(|| "true".to_owned()).into_iter().collect());
    }
    let one = |value: &Value| match (value, is_number(arg)) {
        (Value::String(text), false) => Ok(text.clone()),
        (Value::Integer(number), true) => Ok(number.to_string()),
        (Value::Float(number), true) => Ok(number.to_string()),
        (_, true) => Err("a number"),
        (_, false) => Err("text in quotes"),
    };
    match value.as_array() {
        Some(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(one).collect()
        }
        Some(_) | None => Ok(vec![one(value)?]),
    }
}

fn is_number(arg: &Arg) -> bool {
    let parsed = arg.get_value_parser().type_id();
    // Sizes are numbers that may be written with a unit.
    let is_size = arg
        .get_value_names()
        .is_some_and(|names| names.iter().any(|name| name == "SIZE"));
    let numbers = [
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<f32>(),
        TypeId::of::<NonZeroU32>(),
    ];
    !is_size && numbers.iter().any(|number| parsed == *number)
}

/// Why clap does not take the values, if it does not.
fn refusal(
    command: &Command,
    subcommand: Option<&str>,
    key: &str,
    values: &[String],
) -> Option<String> {
    let name = subcommand.unwrap_or("doctor");
    let mut line = vec!["colibri".to_owned(), name.to_owned()];
    line.extend(values.iter().map(|value| format!("--{key}={value}")));
    let error = command.clone().try_get_matches_from(line).err()?;
    let expected = if error.kind() == ErrorKind::InvalidValue {
        let known = error.get(ContextKind::ValidValue);
        known.map(|known| format!("one of {known}"))
    } else if error.kind() == ErrorKind::ValueValidation {
        let reason = std::error::Error::source(&error);
        reason.map(|reason| format!("valid ({reason})"))
    } else {
        // Something else is missing from the made-up line, for example a question.
        return None;
    };
    Some(expected.unwrap_or_else(|| "a value it can have".to_owned()))
}

/// A value as it stands in the file, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}
