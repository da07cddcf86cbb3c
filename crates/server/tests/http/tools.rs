//! The Model Context Protocol over HTTP, message by message.

use serde_json::{Value, json};

use crate::support::{Site, answer, example};

async fn call(site: &Site, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = site
        .post("/mcp", &body)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-06-18");
    let (status, told) = answer(request).await;
    assert_eq!(status, 200, "{told}");
    told["result"].clone()
}

async fn tool(site: &Site, name: &str, arguments: Value) -> Value {
    call(
        site,
        "tools/call",
        json!({"name": name, "arguments": arguments}),
    )
    .await
}

#[tokio::test]
async fn an_agent_lists_searches_asks_and_looks() {
    let site = Site::start().await;
    site.add("invoice.pdf", example("invoice.pdf")).await;
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let hello = call(&site, "initialize", params).await;
    assert_eq!(hello["serverInfo"]["name"], "colibri");
    let tools = call(&site, "tools/list", json!({})).await;
    let names: Vec<&str> = tools["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "search_documents",
            "ask_documents",
            "get_page",
            "list_documents"
        ]
    );

    let listed = tool(&site, "list_documents", json!({})).await;
    assert_eq!(
        listed["structuredContent"]["documents"][0]["name"],
        "invoice.pdf"
    );
    let found = tool(
        &site,
        "search_documents",
        json!({"query": "total of the invoice"}),
    )
    .await;
    let hit = &found["structuredContent"]["hits"][0];
    assert_eq!(hit["name"], "invoice.pdf");
    let page = tool(
        &site,
        "get_page",
        json!({"page_id": hit["page_id"], "size": 400}),
    )
    .await;
    assert_eq!(page["content"][0]["text"], "invoice.pdf p.1");
    assert_eq!(page["content"][1]["mimeType"], "image/png");
    assert!(
        page["content"][1]["data"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    let question = "What is the total of the invoice from Osprey Print Works?";
    let told = tool(&site, "ask_documents", json!({"question": question})).await;
    let text = told["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("[invoice.pdf p.1, page_id"), "{text}");

    for (name, arguments) in [
        ("get_page", json!({"page_id": 999})),
        ("get_page", json!({"page_id": "../../etc/passwd"})),
        ("search_documents", json!({"query": ""})),
        ("format_disk", json!({})),
    ] {
        let told = tool(&site, name, arguments).await;
        assert_eq!(told["isError"], true, "{name}: {told}");
    }
}
