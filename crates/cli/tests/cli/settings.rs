//! Flags, environment and configuration file, in this order.

use crate::support::{Home, snapshot};

fn configured(text: &str) -> Home {
    let home = Home::new();
    fs_err::create_dir_all(home.path(".config/colibri")).unwrap();
    fs_err::write(home.path(".config/colibri/config.toml"), text).unwrap();
    home
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let home = configured(
        "index = 'from-file'\nretriever = \"none\"\ninclude = ['*.pdf']\nk = 1\n"
            .replace("k = 1\n", "num-pages = 1\n")
            .as_str(),
    );
    let environment = [("COLIBRI_INDEX", "from-environment")];
    home.run(["index", "documents", "-q"]).exits(0);
    assert!(home.path("from-file/FORMAT").exists());
    home.run_with(["index", "documents", "-q"], "", &environment)
        .exits(0);
    assert!(home.path("from-environment/FORMAT").exists());
    home.run_with(
        ["index", "documents", "-q", "--index", "from-flag"],
        "",
        &environment,
    )
    .exits(0);
    assert!(home.path("from-flag/FORMAT").exists());
    // Lists and numbers, in the commands that have them.
    assert_eq!(
        home.run(["list", "--json"]).exits(0).last()["documents"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let hits = |more: &[&str]| {
        let said = home
            .run([&["search", "ferry", "--json"], more].concat())
            .exits(0);
        said.last()["hits"].as_array().unwrap().len()
    };
    assert_eq!(hits(&[]), 1);
    assert!(hits(&["-k", "5"]) > 1);
}

#[test]
fn flags_can_be_set_in_the_file() {
    let home = configured("json = true\nquiet = false\n");
    home.run(["index", "documents", "--retriever", "none"])
        .exits(0);
    assert!(home.run(["stats"]).exits(0).last()["pages"].is_u64());
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (text, expected) in [
        (
            "indx = 'x'",
            "error: `indx` in the configuration `FILE` is not an option",
        ),
        (
            "config = 'x'",
            "error: `config` in the configuration `FILE` is not an option",
        ),
        (
            "index = 5",
            "error: `index` in the configuration `FILE` must be text in quotes, not `5`",
        ),
        (
            "json = 'yes'",
            "error: `json` in the configuration `FILE` must be true or false, not `\"yes\"`",
        ),
        (
            "threads = 'four'",
            "error: `threads` in the configuration `FILE` must be a number, not `\"four\"`",
        ),
        (
            "max-tokens = 0",
            "error: `max-tokens` in the configuration `FILE` must be valid (0 is not in 1..=4294967295), not `0`",
        ),
        (
            "top-p = 2.5",
            "error: `top-p` in the configuration `FILE` must be valid (it must be a number above 0, and at most 1), not `2.5`",
        ),
        (
            "precision = 'f16'",
            "error: `precision` in the configuration `FILE` must be one of auto, f32, bf16, int8, int4, not `\"f16\"`",
        ),
        (
            "index = ",
            "error: cannot read the configuration `FILE`: line 1: string values must be quoted, expected literal string",
        ),
        (
            "[index]\nx = 1",
            "error: `index` in the configuration `FILE` must be text in quotes, not `{ x = 1 }`",
        ),
    ] {
        let home = configured(text);
        let said = home.run(["list"]).exits(1);
        let expected = expected.replace("FILE", "[home]/.config/colibri/config.toml");
        assert_eq!(
            said.stderr.lines().next(),
            Some(expected.as_str()),
            "{text}"
        );
        // Help is there all the same.
        home.run(["list", "--help"]).exits(0);
    }
}

#[test]
fn another_file_can_be_named() {
    let home = configured("nonsense = 1");
    fs_err::write(home.path("mine.toml"), "color = 'never'").unwrap();
    home.run(["doctor", "--config", "mine.toml"]).exits(0);
    home.run_with(["doctor"], "", &[("COLIBRI_CONFIG", "mine.toml")])
        .exits(0);
    snapshot!(home.run(["doctor", "--config", "nowhere.toml"]), @r"
    exit code 1
    ----- err -----
    error: cannot read the configuration
      because: failed to query resolved metadata `nowhere.toml`: No such file or directory (os error 2)
    ");
}

#[test]
fn colours_where_they_are_wanted() {
    let home = Home::indexed();
    assert!(!home.run(["search", "invoice"]).stdout.contains('\u{1b}'));
    assert!(
        home.run(["search", "invoice", "--color", "always"])
            .stdout
            .contains("\u{1b}[1m")
    );
    assert!(
        home.run(["search", "--color", "always"])
            .stderr
            .contains("\u{1b}[1;31merror:\u{1b}[0m")
    );
}

#[test]
fn quiet_keeps_failures() {
    let home = Home::new();
    fs_err::write(home.path("documents/empty.pdf"), "").unwrap();
    let said = home
        .run(["index", "documents", "documents/empty.pdf", "--quiet"])
        .exits(1);
    assert!(
        said.stderr.starts_with("failed documents/empty.pdf: ")
            || said.stderr.starts_with("failed "),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("note:"), "{}", said.stderr);
}
