//! Which path leads where. `assets/openapi.json` says the same for other programs, and a test compares them.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{any_service, delete, get, post},
};

use crate::{
    App, Error,
    api::{ask, documents, jobs, pages, search, system},
    assets, guard, mcp, openai,
};

/// Everything the server answers.
pub fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/health", get(system::health))
        .route("/activity", get(system::activity))
        .route("/openapi.json", get(assets::openapi))
        .route(
            "/documents",
            get(documents::list)
                .post(documents::upload)
                // Bounded while it is read, piece by piece.
                .layer(DefaultBodyLimit::disable()),
        )
        .route("/documents/url", post(documents::add_url))
        .route("/documents/paths", post(documents::add_paths))
        .route("/documents/{id}", delete(documents::remove))
        .route("/search", post(search::search))
        .route("/ask", post(ask::ask))
        .route("/asks/{id}", delete(ask::stop))
        .route("/asks/{id}/events", get(ask::events))
        .route("/pages/{page}", get(pages::page))
        .route("/pages/{page}/thumbnail.webp", get(pages::thumbnail))
        .route("/pages/{page}/heatmap", get(pages::heat_map))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{id}", get(jobs::one).delete(jobs::stop))
        .route("/jobs/{id}/events", get(jobs::events));
    let v1 = Router::new()
        .route("/models", get(openai::models::list))
        .route("/models/{*name}", get(openai::models::one))
        .route("/chat/completions", post(openai::chat::complete))
        .route("/embeddings", post(openai::embeddings::embed))
        .route("/rerank", post(openai::rerank::rerank));
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .route("/favicon.ico", get(assets::icon))
        .route("/metrics", get(system::metrics))
        .nest("/api", api)
        .nest("/v1", v1)
        .route("/mcp", any_service(mcp::http(&app)))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn nowhere(uri: Uri) -> Error {
    let path: String = uri.path().chars().take(200).collect();
    Error::no(format!("`{path}` here"))
}

async fn not_so(method: Method) -> Error {
    let method = method.as_str().chars().take(20).collect();
    Error::Method { method }
}
