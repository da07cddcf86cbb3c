//! Those of the attacks in docs/security.md that come from other sites and hostile callers; `bounds` has those that
//! only want to cost much.

use colibri_engine::web::FetchConfig;
use colibri_server::{Access, ApiKey};
use serde_json::json;

use crate::support::{Site, answer, pdf};

#[tokio::test]
async fn names_of_others_and_pages_of_others_are_refused() {
    let site = Site::start().await;
    let own = format!("Host: {}", site.address);
    let port = site.address.port();
    assert_eq!(site.raw_status("GET /api/documents", &[&own]).await, "200");
    let localhost = format!("Host: localhost:{port}");
    assert_eq!(
        site.raw_status("GET /api/documents", &[&localhost]).await,
        "200"
    );
    // DNS rebinding: the name leads here, and is not ours.
    for host in [
        "Host: evil.example",
        "Host: 127.0.0.1.evil.example:80",
        "Host:",
    ] {
        assert_eq!(
            site.raw_status("GET /api/documents", &[host]).await,
            "403",
            "{host}"
        );
    }
    assert_eq!(
        site.raw_status("GET /api/documents", &["X: y"]).await,
        "400"
    );
    assert_eq!(
        site.raw_status("GET /", &[&own, "Host: evil.example"])
            .await,
        "400"
    );
    // Pages of other origins, those of another port of this machine too.
    for origin in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost:1",
        "Origin: file://",
    ] {
        assert_eq!(
            site.raw_status("GET /api/documents", &[&own, origin]).await,
            "403",
            "{origin}"
        );
    }
    let same = format!("Origin: http://{}", site.address);
    assert_eq!(
        site.raw_status("GET /api/documents", &[&own, &same]).await,
        "200"
    );
    for site_header in ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"] {
        let headers = [own.as_str(), site_header, "Sec-Fetch-Mode: no-cors"];
        assert_eq!(
            site.raw_status("GET /api/pages/1.png", &headers).await,
            "403"
        );
        // Following a link is harmless, and opens the app only.
        let headers = [own.as_str(), site_header, "Sec-Fetch-Mode: navigate"];
        assert_eq!(site.raw_status("GET /", &headers).await, "200");
        assert_eq!(site.raw_status("GET /api/documents", &headers).await, "403");
    }
    // A form of another site can only send these types.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let request = format!(
            "POST /api/search HTTP/1.1\r\n{own}\r\nContent-Type: {kind}\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{{\"query\":\"a\"}}"
        );
        let said = site.raw(request.as_bytes()).await;
        assert!(
            said.starts_with("HTTP/1.1 400") && said.contains("not_json"),
            "{kind}: {said}"
        );
    }
}

#[tokio::test]
async fn paths_lead_nowhere() {
    let site = Site::start().await;
    let own = format!("Host: {}", site.address);
    for path in [
        "/assets/../Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2e%2e/app.js",
        "/assets//etc/passwd",
        "/../../etc/passwd",
        "/api/pages/..%2f..%2fetc%2fpasswd.png",
        "/api/pages/1.png%00.webp",
        "/api/pages/-1",
        "/api/pages/99999999999999999999.png",
        "/api/pages/1.svg",
        "/api/asks/..%2f..%2f/events",
        "/index.php",
    ] {
        let status = site.raw_status(&format!("GET {path}"), &[&own]).await;
        assert!(matches!(status.as_str(), "400" | "404"), "{path}: {status}");
    }
    for line in [
        "PUT /api/documents",
        "TRACE /",
        "DELETE /api/search",
        "OPTIONS /api/ask",
    ] {
        assert_eq!(site.raw_status(line, &[&own]).await, "405", "{line}");
    }
}

#[tokio::test]
async fn browsers_are_told_what_they_may_not_do() {
    let site = Site::start().await;
    for path in ["/", "/assets/app.js", "/api/documents", "/no/such/path"] {
        let response = site.get(path).send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert!(policy.contains("require-trusted-types-for 'script'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
        assert!(!response.headers().contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn the_key_is_asked_for_and_never_shown() {
    let site = Site::with(|config| {
        config.access = Access {
            api_key: Some(ApiKey::new("correct horse battery")),
            host_names: vec!["papers.lan".to_owned()],
        };
    })
    .await;
    for path in [
        "/api/documents",
        "/api/activity",
        "/v1/models",
        "/metrics",
        "/mcp",
    ] {
        let (status, told) = answer(site.get(path)).await;
        assert_eq!(status, 401, "{path}");
        assert!(!told.to_string().contains("battery"));
        for wrong in [
            "Bearer nonsense",
            "Basic Y29ycmVjdA==",
            "correct horse battery",
            "Bearer ",
        ] {
            let (status, _) = answer(site.get(path).header("authorization", wrong)).await;
            assert_eq!(status, 401, "{path} {wrong}");
        }
    }
    let (status, health) = answer(site.get("/api/health")).await;
    assert_eq!((status, &health["needs_key"]), (200, &json!(true)));
    assert!(health.get("index").is_none());
    assert_eq!(answer(site.get("/")).await.0, 200);
    let request = site.get("/api/health").bearer_auth("correct horse battery");
    let (_, health) = answer(request).await;
    assert!(health.get("index").is_some());
    assert!(!format!("{:?}", site.app).contains("battery"));
    let host = [
        "Host: papers.lan",
        "Authorization: Bearer correct horse battery",
    ];
    assert_eq!(site.raw_status("GET /api/documents", &host).await, "200");
}

#[tokio::test]
async fn urls_lead_to_public_addresses_only() {
    let site = Site::with(|config| config.fetch = Some(FetchConfig::new(&config.uploads))).await;
    let own = site.address.port();
    for url in [
        format!("http://127.0.0.1:{own}/api/documents"),
        format!("http://localhost:{own}/"),
        format!("http://[::1]:{own}/"),
        format!("http://[::ffff:127.0.0.1]:{own}/"),
        format!("http://2130706433:{own}/"),
        format!("http://0x7f.1:{own}/"),
        format!("http://0177.0.0.1:{own}/"),
        format!("http://127.1:{own}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://192.168.0.1/".to_owned(),
        "http://10.0.0.1/a.pdf".to_owned(),
        "http://0.0.0.0/".to_owned(),
    ] {
        let (status, job) = answer(site.post("/api/documents/url", &json!({"url": url}))).await;
        assert_eq!(status, 202, "{url}");
        let ended = site.job(&job).await;
        assert_eq!(ended["state"], "failed", "{url}");
        let error = ended["error"].as_str().unwrap();
        assert!(error.contains("not a public address"), "{url}: {error}");
    }
    for url in [
        "file:///etc/passwd",
        "gopher://a/",
        "ftp://a/b.pdf",
        "javascript:1",
        "",
    ] {
        let (status, _) = answer(site.post("/api/documents/url", &json!({"url": url}))).await;
        assert_eq!(status, 400, "{url}");
    }
    let none = Site::start().await;
    let body = json!({"url": "https://example.org/a.pdf"});
    assert_eq!(answer(none.post("/api/documents/url", &body)).await.0, 403);
}

#[tokio::test]
async fn markup_in_documents_stays_text() {
    let site = Site::start().await;
    let script = "<script>document.title='taken'</script>";
    let image = "<img src=x onerror=alert(1)> hostile total";
    site.add("<b>evil</b>.pdf", pdf(script, &[script, image]))
        .await;
    let response = site.get("/api/documents").send().await.unwrap();
    // JSON with its own type, which no browser shows as a page.
    assert_eq!(response.headers()["content-type"], "application/json");
    let (_, found) = answer(site.post("/api/search", &json!({"query": "hostile total"}))).await;
    assert!(
        found["hits"][0]["text"]
            .as_str()
            .unwrap()
            .contains("<img src=x")
    );
    let name = found["hits"][0]["name"].as_str().unwrap();
    assert!(!name.contains(['<', '>', '/']), "{name}");
}
