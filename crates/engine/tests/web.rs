//! Documents by URL, against a server of the loopback that misbehaves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use colibri_engine::{
    Error,
    web::{FetchConfig, Fetched, fetch},
};

const PDF: &[u8] = b"%PDF-1.7\nsome pages\n%%EOF\n";

/// Answers each path with what was prepared for it; requests are written down.
struct Elsewhere {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Elsewhere {
    fn start(answers: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let written = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines();
                let head: Vec<String> = lines
                    .by_ref()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let head = head.join("\n");
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                written.lock().unwrap().push(path.clone());
                let _ = (&stream).write_all(&answers(&path, &head));
            }
        });
        Self { address, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn num_seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn config(&self, folder: &Path) -> FetchConfig {
        FetchConfig {
            trusted: vec![self.address],
            max_bytes: 10_000,
            ..FetchConfig::new(folder)
        }
    }
}

fn whole(extra: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend(body);
    out
}

fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

fn get(config: &FetchConfig, url: &str) -> Result<Fetched, Error> {
    fetch(config, url, &AtomicBool::new(false), &|_| {})
}

fn refused(config: &FetchConfig, url: &str) -> (&'static str, String) {
    let error = get(config, url).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn the_second_time_nobody_is_asked_and_later_only_for_changes() {
    let site = Elsewhere::start(|path, head| match path {
        "/a" if head.contains("if-none-match: \"one\"") => status("304 Not Modified"),
        "/a" => whole("ETag: \"one\"\r\n", PDF),
        _ => status("404 Not Found"),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = site.config(folder.path());
    let first = get(&config, &site.url("/a")).unwrap();
    assert!(!first.from_cache && first.bytes == PDF.len() as u64);
    assert_eq!(fs_err::read(&first.path).unwrap(), PDF);
    assert_eq!(first.path.file_name().unwrap(), "a.pdf");
    let second = get(&config, &site.url("/a")).unwrap();
    assert!(second.from_cache && second.path == first.path);
    assert_eq!(site.num_seen(), 1);

    let stale = FetchConfig {
        fresh_time: Duration::ZERO,
        ..config.clone()
    };
    assert!(get(&stale, &site.url("/a")).unwrap().from_cache);
    assert_eq!(site.num_seen(), 2);
    // A file that was changed or removed is fetched again.
    fs_err::write(&first.path, "cut").unwrap();
    assert!(!get(&config, &site.url("/a")).unwrap().from_cache);
}

#[test]
fn what_cannot_be_reached_any_more_serves_from_before() {
    let gone = Arc::new(AtomicBool::new(false));
    let site = Elsewhere::start({
        let gone = gone.clone();
        move |_, _| {
            if gone.load(Ordering::Relaxed) {
                status("503 Service Unavailable")
            } else {
                whole("", PDF)
            }
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let config = FetchConfig {
        fresh_time: Duration::ZERO,
        ..site.config(folder.path())
    };
    get(&config, &site.url("/a.pdf")).unwrap();
    gone.store(true, Ordering::Relaxed);
    assert!(get(&config, &site.url("/a.pdf")).unwrap().from_cache);
    let (code, told) = refused(&config, &site.url("/b.pdf"));
    assert_eq!(code, "url_status");
    assert!(told.contains("503"), "{told}");
}

#[test]
fn redirects_are_followed_to_places_that_are_allowed() {
    let elsewhere = "http://127.0.0.2:80/a.pdf";
    let site = Elsewhere::start(move |path, _| {
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .into_bytes()
        };
        match path {
            "/near" => to("/paper.pdf?secret=1"),
            "/inside" => to(elsewhere),
            "/metadata" => to("http://169.254.169.254/latest/"),
            "/named" => to("http://localhost:1/"),
            "/file" => to("file:///etc/passwd"),
            "/user" => to("http://user:word@example.org/"),
            "/round" => to("/round"),
            "/nowhere" => status("302 Found"),
            _ => whole("", PDF),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let config = site.config(folder.path());
    let found = get(&config, &site.url("/near")).unwrap();
    assert_eq!(found.path.file_name().unwrap(), "paper.pdf");
    for (path, code) in [
        ("/inside", "url_private"),
        ("/metadata", "url_private"),
        ("/named", "url_private"),
        ("/file", "url"),
        ("/user", "url"),
        ("/round", "url_redirects"),
        ("/nowhere", "url_redirects"),
    ] {
        assert_eq!(refused(&config, &site.url(path)).0, code, "{path}");
    }
    // Without the exception, the first address is refused before it hears of it.
    let seen = site.num_seen();
    let strict = FetchConfig::new(folder.path());
    assert_eq!(refused(&strict, &site.url("/other.pdf")).0, "url_private");
    assert_eq!(site.num_seen(), seen);
}

#[test]
fn what_is_too_large_or_no_document_leaves_nothing() {
    let site = Elsewhere::start(|path, _| match path {
        "/large" => whole("", &[PDF, &[b' '; 12_000]].concat()),
        "/endless" => {
            let mut out = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
            out.extend([PDF, &[b' '; 12_000]].concat());
            out
        }
        "/page" => whole("", b"  <!DOCTYPE html><title>hi</title>"),
        "/empty" => whole("", b""),
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n%PDF-1.7\n".to_vec(),
        _ => whole("", b"GIF is what this is not"),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = site.config(folder.path());
    for (path, code) in [
        ("/large", "url_too_large"),
        ("/endless", "url_too_large"),
        ("/page", "url_no_document"),
        ("/empty", "url_no_document"),
        ("/other", "url_no_document"),
        ("/cut", "url_unreachable"),
    ] {
        assert_eq!(refused(&config, &site.url(path)).0, code, "{path}");
    }
    let left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    for url in [
        "ftp://a/b.pdf",
        "http://",
        "https://user@example.org/",
        "nonsense",
    ] {
        assert_eq!(refused(&config, url).0, "url", "{url}");
    }
}

#[test]
fn a_fetch_can_be_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = FetchConfig {
        allow_private: true,
        ..FetchConfig::new(folder.path())
    };
    // Nobody answers; the stop is there from the beginning.
    let url = format!("http://{address}/a.pdf");
    let error = fetch(&config, &url, &AtomicBool::new(true), &|_| {}).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
}
