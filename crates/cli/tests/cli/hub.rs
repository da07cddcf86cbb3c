//! Fetching a model from a stand-in for the hub on this machine.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::{Home, snapshot};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "owner/model";

/// Serves the files of a folder as [`NAME`] until the test ends.
fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that leaves early is its own affair.
            drop(answer(&stream, &folder));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap()?;
    // The rest of the head says nothing this server minds.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap();
    let path = path.split('?').next().unwrap();
    let call = path.strip_prefix(&format!("/api/models/{NAME}"));
    let file = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/"));
    let body = match (call, file) {
        (Some(call), _) if call.starts_with("/revision/") => Some(
            json!({"sha": COMMIT, "gated": false})
                .to_string()
                .into_bytes(),
        ),
        (Some(_), _) => Some(tree(folder).to_string().into_bytes()),
        (_, Some(file)) => fs_err::read(folder.join(file)).ok(),
        (None, None) => None,
    };
    let (status, body) = body.map_or((404, Vec::new()), |body| (200, body));
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n"
    )?;
    if status == 404 {
        write!(stream, "X-Error-Code: RepoNotFound\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body)
}

/// The list of files, all of them as large ones, which have a SHA-256.
fn tree(folder: &Path) -> Value {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let bytes = fs_err::read(&path).unwrap();
        let digest: Vec<String> = sha2::Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (name, size) = (path.file_name().unwrap().to_str().unwrap(), bytes.len());
        json!({"type": "file", "oid": "1".repeat(40), "size": size, "path": name,
            "lfs": {"oid": digest.concat(), "size": size, "pointerSize": 134}})
    });
    entries.collect()
}

#[test]
fn a_model_is_fetched_once_and_serves_without_the_network() {
    let home = Home::new();
    let folder = home.retriever();
    let endpoint = format!("http://{}", serve(home.path(&folder)));
    let online = |arguments: &[&str]| {
        let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
        home.run_with(arguments, "", &environment)
    };
    snapshot!(online(&["models", "pull", NAME]), @r"
    exit code 0
    ----- out -----
    owner/model [home]/.cache/huggingface/hub/models--owner--model/snapshots/[hash]
    ----- err -----
    fetching owner/model: 9 files, [size]
    fetched owner/model
    ");
    // Everything is there: nothing more is told.
    assert_eq!(online(&["models", "pull", NAME]).exits(0).stderr, "");
    let event = online(&["models", "pull", NAME, "--json"]).exits(0).last();
    assert_eq!(
        (&event["event"], &event["revision"]),
        (&"done".into(), &COMMIT.into())
    );

    snapshot!(home.run(["models", "list"]), @r"
    exit code 0
    ----- out -----
      [size]  owner/model
               [hash]  9 files  main
    ");
    let info = home.run(["models", "info", NAME, "--json"]).exits(0).last();
    assert_eq!(info["kind"], "retriever");
    let small = ["--precision", "f32", "--detail", "1"];
    let arguments = ["index", "documents/chart.png", "--retriever", NAME, "-q"];
    home.run([&arguments[..], &small].concat()).exits(0);
    let stats = home.run(["stats", "--json"]).exits(0).last();
    assert_eq!(stats["settings"]["retriever"], NAME);
    assert_eq!(stats["settings"]["revision"], COMMIT);
}

#[test]
fn fetching_is_told_as_events() {
    let home = Home::empty();
    let folder = home.retriever();
    let endpoint = format!("http://{}", serve(home.path(&folder)));
    let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let said = home
        .run_with(["models", "pull", NAME, "--json"], "", &environment)
        .exits(0);
    let lines = said.json();
    assert_eq!(
        (&lines[0]["event"], &lines[0]["stage"]),
        (&"status".into(), &"fetch".into())
    );
    assert_eq!(lines.last().unwrap()["event"], "done");
    assert_eq!(said.stderr, "");
    let said = home
        .run_with(
            ["models", "pull", "owner/other", "--json"],
            "",
            &environment,
        )
        .exits(2);
    assert_eq!(said.last()["code"], "hub_model_not_found");
}
