//! The lock that lets one process write an index at a time.
//!
//! The system's lock on the file `lock` excludes, and is given back by the system when its process ends in
//! whatever way; the text in the file only says who holds it.

use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::error::{Error, Result};

/// The name of the lock file.
pub(crate) const FILE_NAME: &str = "lock";
const FIRST_LINE: &str = "colibri-lock 1";
/// No more of the file is read: its text is for people.
const MAX_BYTES: u64 = 4096;

/// Who holds the lock, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process number.
    pub pid: Option<u32>,
    /// What it was started to do.
    pub command: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "process {pid} (`{command}`)"),
            (Some(pid), None) => write!(f, "process {pid}"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// The held lock; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lock {
    file: fs_err::File,
}

impl Lock {
    /// Takes the lock of the index in `dir`.
    ///
    /// # Errors
    /// [`Error::Locked`] with its holder, if another has it.
    pub(crate) fn take(dir: &Path, command: Option<&str>) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options
            .open(&path)
            .map_err(Error::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Best effort: the holder may not have written its line yet, or the system may not let
                // a locked file be read.
                drop((&mut file).take(MAX_BYTES).read_to_string(&mut text));
                return Err(Error::Locked {
                    path: dir.to_owned(),
                    holder: parse(&text),
                });
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(Error::io("lock", &path)(source));
            }
        }
        let mut text = format!("{FIRST_LINE}\npid {}\n", std::process::id());
        if let Some(command) = command {
            let line: String = command
                .chars()
                .take(500)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            text.push_str("command ");
            text.push_str(&line);
            text.push('\n');
        }
        let write = |file: &mut fs_err::File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(Error::io("write the lock file", &path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An old holder left in the file would mislead nobody, since the lock itself is gone.
        drop(self.file.set_len(0));
        drop(self.file.unlock());
    }
}

fn parse(text: &str) -> Holder {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Holder::default();
    }
    let mut holder = Holder::default();
    for line in lines {
        if let Some(pid) = line.strip_prefix("pid ") {
            holder.pid = pid.parse().ok();
        } else if let Some(command) = line.strip_prefix("command ") {
            holder.command = Some(command.chars().filter(|c| !c.is_control()).collect());
        }
    }
    holder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_learns_who_holds_the_lock_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), Some("colibri index\n/papers")).unwrap();
        match Lock::take(dir.path(), None) {
            Err(Error::Locked { holder, .. }) => {
                assert_eq!(holder.pid, Some(std::process::id()));
                assert_eq!(holder.command.as_deref(), Some("colibri index /papers"));
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        Lock::take(dir.path(), None).unwrap();
    }

    #[test]
    fn a_strange_lock_file_names_nobody() {
        assert_eq!(parse("something else\npid 3"), Holder::default());
        assert_eq!(parse("colibri-lock 1\npid many"), Holder::default());
        assert_eq!(parse("").to_string(), "another process");
    }
}
