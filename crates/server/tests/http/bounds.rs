//! What one caller may cost: bytes, pixels, headers, connections, time.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{PATIENCE, Site, answer, example};

#[tokio::test]
async fn uploads_are_bounded_in_size_and_kind() {
    let site = Site::with(|config| {
        config.bounds.upload_bytes = 100_000;
        config.bounds.uploads_bytes = 150_000;
    })
    .await;
    let (status, _) = site.upload("large.pdf", vec![0; 100_001]).await;
    assert_eq!(status, 413);
    // Without a length, too.
    let head = format!(
        "POST /api/documents?name=a.pdf HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        site.address
    );
    let mut body = head.into_bytes();
    for _ in 0..11 {
        body.extend(format!("{:x}\r\n", 10_000).into_bytes());
        body.extend(if body.len() < 1000 {
            b"%PDF-1.7\n".repeat(1112)[..10_000].to_vec()
        } else {
            vec![b'x'; 10_000]
        });
        body.extend(b"\r\n");
    }
    let said = site.raw(&body).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    for (name, bytes) in [
        ("page.pdf", b"<html>".as_slice()),
        ("archive.pdf", b"PK\x03\x04"),
        ("program.png", b"\x7fELF"),
        ("empty.pdf", b""),
        (
            "vector.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        ),
    ] {
        let (status, told) = site.upload(name, bytes.to_vec()).await;
        assert_eq!(
            (status, &told["error"]["code"]),
            (415, &json!("media_type")),
            "{name}"
        );
    }
    let mut large = example("invoice.pdf");
    large.resize(99_000, b' ');
    assert_eq!(site.upload("a.pdf", large.clone()).await.0, 202);
    large.push(b' ');
    // What is left is less than this file.
    assert_eq!(site.upload("b.pdf", large).await.0, 413);
    let uploads = site.app.config().uploads.clone();
    let left = fs_err::read_dir(uploads).unwrap().flatten();
    let partial = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".partial"));
    assert_eq!(partial.count(), 0, "refused uploads leave nothing");
}

/// Small files that claim to be pictures of 60 000 × 60 000 pixels (WebP: 16 000 × 16 000, more it cannot say).
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let side = 60_000_u32;
    let [.., c, d] = side.to_be_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 0, c, d, 0, 0, c, d, 8, 2, 0, 0, 0]);
    let mut gif = b"GIF89a".to_vec();
    gif.extend([d, c, d, c, 0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    gif.extend([0x2c, 0, 0, 0, 0, d, c, d, c, 0, 2, 2, 0x4c, 1, 0, 0x3b]);
    let mut bmp = b"BM".to_vec();
    for word in [1000, 0, 54, 40, side, side, 0x0018_0001, 0, 0, 0, 0, 0, 0] {
        bmp.extend(u32::to_le_bytes(word));
    }
    let mut tiff = b"II*\0\x08\0\0\0\x0a\0".to_vec();
    for (tag, value) in [
        (256_u16, side),
        (257, side),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, side),
        (279, 3_600_000_000),
        (284, 1),
    ] {
        tiff.extend(tag.to_le_bytes());
        tiff.extend([4, 0, 1, 0, 0, 0]);
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    // One lossless frame: a signature, 14 bits for each side less one, and no data worth the name.
    let bits = 15_999_u32 * (1 + (1 << 14));
    let mut webp = b"RIFF\x40\0\0\0WEBPVP8L\x34\0\0\0\x2f".to_vec();
    webp.extend(bits.to_le_bytes());
    [png, gif, bmp, tiff, webp]
        .into_iter()
        .zip(["bomb.png", "bomb.gif", "bomb.bmp", "bomb.tiff", "bomb.webp"])
        .map(|(mut bytes, name)| {
            bytes.resize(bytes.len().max(256), 0);
            (name, bytes)
        })
        .collect()
}

#[tokio::test]
async fn pictures_that_unpack_to_a_flood_cost_one_line() {
    let site = Site::start().await;
    for (name, bytes) in bombs() {
        let url = format!("data:image/x;base64,{}", STANDARD.encode(&bytes));
        let (status, job) = site.upload(name, bytes).await;
        assert_eq!(status, 202, "{name}: {job}");
        let ended = site.job(&job).await;
        let error = ended["error"].as_str().unwrap();
        assert_eq!(ended["state"], "failed", "{name}");
        assert!(error.contains("pixels"), "{name}: {error}");
        // The same in a message of a chat.
        let content = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let messages = json!([{"role": "user", "content": content}]);
        let body = json!({"model": "colibri", "messages": messages});
        let (status, told) = answer(site.post("/v1/chat/completions", &body)).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!((400..500).contains(&status), "{name}: {status} {message}");
        assert!(message.contains("pixels"), "{name}: {message}");
    }
    assert_eq!(answer(site.get("/api/health")).await.0, 200);
}

#[tokio::test]
async fn floods_of_headers_and_bodies_are_cut() {
    let site = Site::start().await;
    let own = format!("Host: {}", site.address);
    let many: Vec<String> = (0..100).map(|number| format!("X-{number}: y")).collect();
    let mut headers: Vec<&str> = many.iter().map(String::as_str).collect();
    headers.push(&own);
    assert_eq!(site.raw_status("GET /", &headers).await, "431");
    let long = format!("X: {}", "y".repeat(100_000));
    assert_eq!(site.raw_status("GET /", &[&own, &long]).await, "431");
    let path = format!("GET /{}", "a".repeat(70_000));
    let status = site.raw_status(&path, &[&own]).await;
    assert!(matches!(status.as_str(), "414" | "431"), "{status}");
    let body = json!({"query": "a".repeat(300_000)});
    assert_eq!(answer(site.post("/api/search", &body)).await.0, 413);
    let deep = "[".repeat(100_000);
    let request = site.post("/api/search", &json!({})).body(deep);
    assert_eq!(answer(request).await.0, 400);
    // Two lengths, or a length and chunks: where does the body end?
    for extra in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ] {
        let request = format!(
            "POST /api/search HTTP/1.1\r\n{own}\r\nContent-Type: application/json\r\nConnection: close\r\n{extra}\r\n\r\n0\r\n\r\n"
        );
        let said = site.raw(request.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{extra}: {said}");
        assert_eq!(said.matches("HTTP/1.1").count(), 1);
    }
    let said = site
        .raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03not http at all\r\n\r\n")
        .await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 400"),
        "{said}"
    );
}

#[tokio::test]
async fn peers_that_say_nothing_are_let_go() {
    let site = Site::with(|config| {
        config.bounds.header_time = Duration::from_millis(200);
        config.bounds.stall_time = Duration::from_millis(200);
    })
    .await;
    // Slowloris: a request that never ends.
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
        .await
        .unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    let _ = read.unwrap();
    // A body that never comes.
    let head = format!(
        "POST /api/search HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{",
        site.address
    );
    let said = site.raw(head.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn more_connections_than_there_may_be_are_closed() {
    let site = Site::with(|config| config.bounds.connections = 4).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let request = format!(
            "GET /api/activity HTTP/1.1\r\nHost: {}\r\n\r\n",
            site.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        held.push(stream);
    }
    assert_eq!(site.raw(b"GET / HTTP/1.1\r\n\r\n").await, "");
    drop(held);
    // Closing is noticed; until then a caller may be refused.
    let served = async {
        while site.get("/api/health").send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
}
