//! Help, version, and command lines that make no sense.

use crate::support::{Home, snapshot};

const COMMANDS: [&str; 17] = [
    "index",
    "search",
    "ask",
    "chat",
    "serve",
    "mcp",
    "list",
    "remove",
    "stats",
    "verify",
    "compact",
    "models",
    "embed",
    "generate",
    "bench",
    "doctor",
    "completions",
];

#[test]
fn the_summary_names_every_command() {
    let said = Home::empty().run(["-h"]).exits(0);
    for command in COMMANDS {
        assert!(
            said.stdout.contains(&format!("\n  {command} ")),
            "{command} is missing in\n{}",
            said.stdout
        );
    }
    assert!(!said.stdout.contains("pdf-worker"));
}

#[test]
fn help_documents_environment_and_configuration() {
    let said = Home::empty().run(["--help"]).exits(0);
    for word in [
        "COLIBRI_INDEX",
        "COLIBRI_RETRIEVER",
        "COLIBRI_GENERATOR",
        "COLIBRI_CONFIG",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "NO_COLOR",
        "config.toml",
        "Exit codes",
    ] {
        assert!(
            said.stdout.contains(word),
            "{word} is missing in\n{}",
            said.stdout
        );
    }
}

#[test]
fn every_command_has_help_and_understands_the_common_options() {
    let home = Home::empty();
    for command in COMMANDS {
        let said = home.run([command, "--help"]).exits(0);
        for option in ["--index", "--json", "--config"] {
            assert!(
                said.stdout.contains(option),
                "{command} --help lacks {option}"
            );
        }
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn version() {
    snapshot!(Home::empty().run(["--version"]), @r"
    exit code 0
    ----- out -----
    colibri 0.1.0
    ");
}

#[test]
fn an_unknown_command_is_bad_input() {
    snapshot!(Home::empty().run(["serach", "x"]), @r"
    exit code 1
    ----- err -----
    error: unrecognized subcommand 'serach'

      tip: some similar subcommands exist: 'serve', 'bench', 'search'

    Usage: colibri [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_wrong_value_is_bad_input() {
    let home = Home::empty();
    snapshot!(home.run(["ask", "Why?", "--top-p", "1.5"]), @r"
    exit code 1
    ----- err -----
    error: invalid value '1.5' for '--top-p <X>': it must be a number above 0, and at most 1

    For more information, try '--help'.
    ");
    snapshot!(home.run(["search", "Why?", "--mode", "smell"]), @r"
    exit code 1
    ----- err -----
    error: invalid value 'smell' for '--mode <visual|text|hybrid>'
      [possible values: visual, text, hybrid]

    For more information, try '--help'.
    ");
    home.run(["search", "Why?", "-k", "0"]).exits(1);
    home.run(["ask", "Why?", "--temperature", "nan"]).exits(1);
}

#[test]
fn without_arguments_the_help_is_shown() {
    let said = Home::empty().run::<&str>([]).exits(1);
    assert!(said.stderr.contains("Usage: colibri"), "{}", said.stderr);
}

#[test]
fn completions_know_the_commands() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = home.run(["completions", shell]).exits(0);
        assert!(said.stdout.contains("save-pages"), "{shell}");
    }
}
