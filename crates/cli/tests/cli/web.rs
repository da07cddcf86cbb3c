//! One document by URL, from a server on this machine.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{Home, repository};

/// Serves one PDF at every path and counts who asks.
fn serve(body: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            // A client that leaves early is its own affair.
            drop(answer(&stream, &body));
        }
    });
    (address, asked)
}

fn answer(mut stream: &TcpStream, body: &[u8]) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/pdf\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)
}

#[test]
fn a_document_by_url_is_answered_from_and_asked_for_once() {
    let home = Home::empty();
    let slides = repository().join("examples/documents/slides.pdf");
    let (address, asked) = serve(fs_err::read(slides).unwrap());
    let url = format!("http://{address}/slides.pdf");
    let ask = |more: &[&str]| {
        let question = "Who presented the winter timetable?";
        let without = ["--retriever", "none", "--generator", "none", "--verbose"];
        home.run([&["ask", question, &url], &without[..], more].concat())
    };
    // Addresses of this machine are nobody's business unless that is said.
    let said = ask(&[]).exits(1);
    assert!(said.stderr.contains("--allow-private-urls"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let first = ask(&["--allow-private-urls"]).exits(0);
    let second = ask(&["--allow-private-urls"]).exits(0);
    for said in [&first, &second] {
        assert!(
            said.stdout.contains("Tomas Berglund") && said.stdout.contains("slides.pdf p.1]"),
            "{said}"
        );
    }
    assert!(first.stderr.contains("indexed "), "{first}");
    // Neither fetched nor read again.
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(
        second.stderr.contains("was fetched before") && second.stderr.contains("unchanged "),
        "{second}"
    );
}
