//! Ctrl-C: the first ends the work well, and the next run goes on.

#![cfg(unix)]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use crate::support::Home;

/// Lines so long that the pipe is full before all of them are written: the program waits for us, whatever
/// the machine's speed.
const DOCUMENTS: usize = 60;
const FOLDERS: usize = 12;

#[test]
fn index_stops_well_and_goes_on() {
    let home = Home::new();
    let mut folder = home.path("many");
    for _ in 0..FOLDERS {
        folder.push("a".repeat(240));
    }
    fs_err::create_dir_all(&folder).unwrap();
    for number in 0..DOCUMENTS {
        fs_err::copy(
            home.path("documents/chart.png"),
            folder.join(format!("{number}.png")),
        )
        .unwrap();
    }
    let arguments = ["index", "many", "--retriever", "none", "--json"];
    let mut child = home
        .command()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.contains("\"indexed\""), "{first}");
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    // Only when it has noticed do we read on.
    let mut noticed = String::new();
    while !noticed.contains("stopping; press Ctrl-C again") {
        assert!(stderr.read_line(&mut noticed).unwrap() > 0, "{noticed}");
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    stderr.read_to_string(&mut noticed).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{noticed}");
    assert!(
        rest.lines()
            .last()
            .unwrap()
            .contains("\"code\":\"cancelled\""),
        "{rest}"
    );
    assert!(
        noticed.contains("run the same command again to go on"),
        "{noticed}"
    );
    let before = rest
        .lines()
        .filter(|line| line.contains("\"indexed\""))
        .count()
        + 1;
    assert!(before < DOCUMENTS);

    let again = home.run(arguments).exits(0).json();
    let unchanged = again
        .iter()
        .filter(|line| line["status"] == "unchanged")
        .count();
    assert_eq!(unchanged, before);
    assert_eq!(again.last().unwrap()["documents"], DOCUMENTS);
    home.run(["verify"]).exits(0);
}
