//! A home for one test, the program run in it, and what it said.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Output,
};

use assert_cmd::Command;
use colibri_testkit::random::{Role, TINY, write_checkpoint};
use serde_json::Value;
use tempfile::TempDir;

/// What stands for changing parts of the output.
pub(crate) const FILTERS: [(&str, &str); 6] = [
    (r"\b\d+\.\d s\b", "[seconds]"),
    (r"\b\d+(\.\d)? (B|KiB|MiB|GiB)", "[size]"),
    (r"process \d+", "process [pid]"),
    (r"\b[0-9a-f]{12,64}\b", "[hash]"),
    (r"\b\d+ ms\b", "[ms]"),
    (r"\b\d+\.\d{4}\b", "[score]"),
];

/// A home with a copy of the example documents in `documents`, which is also the current folder's child.
pub(crate) struct Home {
    dir: TempDir,
}

/// What a run said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    fn of(output: &Output, home: &Path) -> Self {
        let code = output.status.code().expect("it was not killed");
        let home = fs_err::canonicalize(home).unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
            text.replace(home.to_str().unwrap(), "[home]")
        };
        Self {
            code,
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Standard output as JSON lines.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last JSON line.
    #[track_caller]
    pub(crate) fn last(&self) -> Value {
        self.json().pop().expect("a line of JSON")
    }

    /// Fails with everything that was said unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        );
        self
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.code)?;
        for (name, text) in [("out", &self.stdout), ("err", &self.stderr)] {
            if !text.is_empty() {
                // Inline snapshots lose spaces at the end of lines.
                let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
                write!(f, "\n----- {name} -----\n{}", lines.join("\n"))?;
            }
        }
        Ok(())
    }
}

impl Home {
    /// A home with nothing in it.
    pub(crate) fn empty() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("home").tempdir().unwrap(),
        }
    }

    /// A home with the example documents.
    pub(crate) fn new() -> Self {
        let home = Self::empty();
        let documents = home.path("documents");
        fs_err::create_dir(&documents).unwrap();
        for entry in fs_err::read_dir(repository().join("examples/documents")).unwrap() {
            let from = entry.unwrap().path();
            fs_err::copy(&from, documents.join(from.file_name().unwrap())).unwrap();
        }
        home
    }

    /// A home whose index holds the example documents by their text.
    pub(crate) fn indexed() -> Self {
        let home = Self::new();
        home.run(["index", "documents", "--quiet"]).exits(0);
        home
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path(".local/share/colibri/index")
    }

    /// The program with nothing of the environment but its own home.
    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_colibri"));
        command.env_clear().current_dir(self.dir.path());
        for (key, value) in [
            ("HOME", ""),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_CONFIG_HOME", ".config"),
        ] {
            command.env(key, self.path(value));
        }
        // What the built-in retriever finds is the matter of its own tests; the others are about text.
        command
            .env("HF_HUB_OFFLINE", "1")
            .env("COLUMNS", "100")
            .env("COLIBRI_RETRIEVER", "none");
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Said {
        self.run_with(arguments, "", &[])
    }

    /// Runs it with text on standard input and more in the environment.
    pub(crate) fn run_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
        environment: &[(&str, &str)],
    ) -> Said {
        let mut command = Command::from_std(self.command());
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .write_stdin(input);
        Said::of(&command.output().unwrap(), self.dir.path())
    }

    /// Writes a small retriever of noise into the home; its folder.
    pub(crate) fn retriever(&self) -> String {
        self.checkpoint("retriever", Role::Retriever)
    }

    /// Writes a small generator of noise into the home; its folder.
    pub(crate) fn generator(&self) -> String {
        self.checkpoint("generator", Role::Generator)
    }

    fn checkpoint(&self, name: &str, role: Role) -> String {
        write_checkpoint(&self.path(name), &TINY, role);
        name.to_owned()
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The questions about the example documents.
pub(crate) fn questions() -> Vec<Value> {
    let text =
        fs_err::read_to_string(repository().join("examples/documents/questions.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Compares exit code, standard output and standard error with what was looked at.
macro_rules! snapshot {
    ($said:expr, @$expected:literal) => {
        insta::with_settings!({filters => $crate::support::FILTERS.to_vec()}, {
            insta::assert_snapshot!($said.to_string(), @$expected)
        })
    };
}
pub(crate) use snapshot;
