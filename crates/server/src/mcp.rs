//! The Model Context Protocol: four tools by which an agent uses the documents, over standard input and
//! output (`colibri mcp`) and over HTTP (`/mcp`).
//!
//! The protocol itself is `rmcp`'s, the official implementation; everything that knows it is here.

use std::{borrow::Cow, fmt::Write as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use colibri_engine::{
    self as engine,
    index::{Filter, Mode},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
        InitializeResult, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
        Tool, ToolAnnotations,
    },
    service::RequestContext,
    transport::{
        stdio,
        streamable_http_server::{
            StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
        },
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    App, Error, Result,
    api::{names::file_name, pages, search},
    asks::{Question, Work},
    event_log::Next,
};

/// The longest edge of a page's picture, unless asked otherwise: small print can be read, and a model's
/// picture limit is not passed.
const PICTURE_EDGE: u32 = 1568;
const MOST_DOCUMENTS: usize = 1000;

/// What an agent is told about all of it.
const INSTRUCTIONS: &str = "Documents of the user, indexed by what their pages look like and by their text. \
    Use search_documents to find pages, get_page to look at one, ask_documents to have a question answered \
    from the pages with citations, list_documents to see what there is.";

/// One conversation with an agent.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    app: Arc<App>,
}

#[derive(Debug, Deserialize)]
struct SearchArguments {
    query: String,
    #[serde(default = "five")]
    k: usize,
    #[serde(default)]
    mode: Mode,
    #[serde(flatten)]
    scope: search::Scope,
}

fn five() -> usize {
    5
}

#[derive(Debug, Deserialize)]
struct AskArguments {
    question: String,
    #[serde(default = "three")]
    pages: usize,
    #[serde(flatten)]
    scope: search::Scope,
}

fn three() -> usize {
    3
}

#[derive(Debug, Deserialize)]
struct PageArguments {
    page_id: i64,
    size: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct ListArguments {
    #[serde(default, rename = "where")]
    filter: Vec<String>,
}

/// Names, descriptions and parameters of the tools.
fn tools() -> Vec<Tool> {
    let scope = json!({
        "type": "array", "items": {"type": "string"},
        "description": "Expressions that must all hold, such as `name~*.pdf` or `year>=2023`",
    });
    let tool = |name: &'static str, title: &str, about: &'static str, schema: Value| {
        let schema: JsonObject = schema.as_object().cloned().unwrap_or_default();
        Tool::new(name, about, Arc::new(schema))
            .with_title(title)
            .with_annotations(ToolAnnotations::new().read_only(true).open_world(false))
    };
    vec![
        tool(
            "search_documents",
            "Search documents",
            "Find the pages of the user's documents that fit a question best, with scores, the words that fit, and page_id for get_page.",
            json!({"type": "object", "required": ["query"], "properties": {
                "query": {"type": "string", "description": "What to look for, in words"},
                "k": {"type": "integer", "minimum": 1, "maximum": 50, "default": 5, "description": "How many pages"},
                "mode": {"type": "string", "enum": ["hybrid", "visual", "text"], "default": "hybrid"},
                "where": scope,
            }}),
        ),
        tool(
            "ask_documents",
            "Ask documents",
            "Answer a question from the user's documents, citing the pages the answer rests on.",
            json!({"type": "object", "required": ["question"], "properties": {
                "question": {"type": "string"},
                "pages": {"type": "integer", "minimum": 1, "maximum": 20, "default": 3, "description": "How many pages are read"},
                "where": scope,
            }}),
        ),
        tool(
            "get_page",
            "Get page",
            "Look at one page: its picture and its text.",
            json!({"type": "object", "required": ["page_id"], "properties": {
                "page_id": {"type": "integer", "description": "As search_documents gives it"},
                "size": {"type": "integer", "minimum": 32, "maximum": 4096, "default": PICTURE_EDGE, "description": "Longest edge of the picture in pixels"},
            }}),
        ),
        tool(
            "list_documents",
            "List documents",
            "List the user's documents with their numbers of pages.",
            json!({"type": "object", "properties": {"where": scope}}),
        ),
    ]
}

fn arguments<T: for<'a> Deserialize<'a>>(given: Option<JsonObject>) -> Result<T> {
    serde_json::from_value(Value::Object(given.unwrap_or_default()))
        .map_err(|error| Error::bad(format!("the arguments cannot be understood: {error}")))
}

impl Tools {
    async fn call(&self, name: &str, given: Option<JsonObject>) -> Result<CallToolResult> {
        match name {
            "search_documents" => self.search(arguments(given)?).await,
            "ask_documents" => self.ask(arguments(given)?).await,
            "get_page" => self.page(arguments(given)?).await,
            "list_documents" => self.list(arguments(given)?).await,
            other => Err(Error::no(format!("tool `{other}`"))),
        }
    }

    async fn search(&self, given: SearchArguments) -> Result<CallToolResult> {
        let query = search::question(&given.query)?;
        let k = given.k.clamp(1, 50);
        let found = self
            .app
            .blocking(move |app| search::found(app, &query, k, given.mode, &given.scope))
            .await?;
        Ok(CallToolResult::structured(found))
    }

    async fn ask(&self, given: AskArguments) -> Result<CallToolResult> {
        let text = search::question(&given.question)?;
        let scope = given.scope;
        let filter = self.app.blocking(move |app| scope.filter(app)).await?;
        let work = Work::Corpus(Question {
            text,
            pages: given.pages.clamp(1, 20),
            mode: Mode::Hybrid,
            filter,
            history: Vec::new(),
            instructions: None,
            with_text: false,
            generate: engine::generate::GenerateOptions::default(),
        });
        let (ask, _reader) = self.app.asks.put(&self.app, "mcp", work)?;
        let mut after = 0;
        loop {
            match ask.log.next(after).await {
                Next::Missed(number) => after += number,
                Next::End => return Err(Error::Ending),
                Next::Entry(entry) => {
                    after = entry.number;
                    let data: Value = serde_json::from_str(&entry.data).unwrap_or_default();
                    match entry.name {
                        "done" => return Ok(answered(&data)),
                        "failed" => {
                            return Err(Error::of_event(&data));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    async fn page(&self, given: PageArguments) -> Result<CallToolResult> {
        let (caption, text, picture) = self
            .app
            .blocking(move |app| {
                let index = app.index()?;
                let page = index.page(engine::index::PageId(given.page_id))?;
                let size = given.size.unwrap_or(PICTURE_EDGE);
                let picture = pages::png(app, given.page_id, size)?;
                let caption = format!("{} p.{}", file_name(&page.document), page.number);
                Ok((caption, page.text, picture))
            })
            .await?;
        let mut content = vec![
            ContentBlock::text(caption),
            ContentBlock::image(STANDARD.encode(&picture), "image/png"),
        ];
        if !text.trim().is_empty() {
            content.push(ContentBlock::text(text));
        }
        Ok(CallToolResult::success(content))
    }

    async fn list(&self, given: ListArguments) -> Result<CallToolResult> {
        let documents = self
            .app
            .blocking(move |app| {
                let filter = Filter::parse_all(&given.filter)?;
                let Some(index) = app.index_if_any()? else {
                    return Ok(Vec::new());
                };
                Ok(index.list(&filter)?)
            })
            .await?;
        let total = documents.len();
        let shown: Vec<Value> = documents
            .iter()
            .take(MOST_DOCUMENTS)
            .map(|document| {
                json!({
                    "id": document.id, "name": file_name(&document.record.path),
                    "path": document.record.path, "title": document.record.title,
                    "pages": document.num_pages, "kind": document.record.kind,
                    "metadata": document.record.metadata,
                })
            })
            .collect();
        Ok(CallToolResult::structured(
            json!({"documents": shown, "total": total}),
        ))
    }
}

/// An answer as an agent reads it: the text, then where it stands.
fn answered(done: &Value) -> CallToolResult {
    let mut text = done["answer"].as_str().unwrap_or_default().to_owned();
    for citation in done["citations"].as_array().into_iter().flatten() {
        let name = citation["name"].as_str().unwrap_or_default();
        let (page, id) = (&citation["page"], &citation["page_id"]);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "
[{name} p.{page}, page_id {id}]"
        );
    }
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(json!({
        "answer": done["answer"], "citations": done["citations"], "generator": done["generator"],
    }));
    result
}

impl ServerHandler for Tools {
    fn get_info(&self) -> InitializeResult {
        InitializeResult::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("colibri", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name: Cow<'static, str> = request.name;
        let result = tokio::select! {
            result = self.call(&name, request.arguments) => result,
            () = context.ct.cancelled() => Err(engine::Error::Cancelled.into()),
        };
        // What goes wrong is told to the model, which can do something about it.
        let result = result.unwrap_or_else(|error| {
            let mut text = engine::chain(&error);
            if let Some(hint) = error.hint() {
                text = format!("{text}\nhint: {hint}");
            }
            CallToolResult::error(vec![ContentBlock::text(text)])
        });
        Ok(result.into())
    }
}

/// The tools over HTTP: every request stands for itself, so that nothing is kept for clients that have gone.
pub(crate) fn http(app: &Arc<App>) -> StreamableHttpService<Tools, NeverSessionManager> {
    let app = app.clone();
    let mut config = StreamableHttpServerConfig::default()
        // Both are looked at before, for every path.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_json_response(true)
        .with_legacy_session_mode(false)
        .with_max_request_body_bytes(app_json_bytes(&app));
    config.sse_retry = None;
    StreamableHttpService::new(
        move || Ok(Tools { app: app.clone() }),
        Arc::new(NeverSessionManager::default()),
        config,
    )
}

fn app_json_bytes(app: &Arc<App>) -> usize {
    app.config().bounds.json_bytes
}

/// Serves the tools over standard input and output until the input ends.
///
/// # Errors
/// When the other side does not speak the protocol.
pub async fn serve_stdio(app: Arc<App>) -> Result<()> {
    let failed = |reason: String| Error::Mcp { reason };
    let tools = Tools { app: app.clone() };
    let running = tools
        .serve(stdio())
        .await
        .map_err(|error| failed(error.to_string()))?;
    running
        .waiting()
        .await
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}
