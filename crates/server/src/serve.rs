//! Sockets: bounds on what a peer may cost before a request is there, and a graceful end.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{App, Error, Result, guard::Peer, routes::router, stall::Stalling, uploads};

/// Headers of a request at most, in number and in bytes with the request line.
const MOST_HEADERS: usize = 64;
const HEADER_BYTES: usize = 32 << 10;
/// How long connections may take to end once the work has ended.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Between two tries when the system has no more sockets.
const NO_SOCKETS: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    /// Where.
    pub address: SocketAddr,
}

impl Listening {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is in use or not this machine's.
    pub async fn at(address: SocketAddr) -> Result<Self> {
        let failed = |source| Error::Listen {
            address: address.to_string(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }
}

/// Serves until `shutdown` completes; then ends what is going on, and returns when all of it has ended.
pub async fn serve(app: Arc<App>, listening: Listening, shutdown: impl Future<Output = ()>) {
    let ending = CancellationToken::new();
    let connections = TaskTracker::new();
    uploads::clear(&app.config().uploads);
    let router = router(app.clone());
    let accept = async {
        loop {
            match listening.listener.accept().await {
                Ok((stream, peer)) => {
                    let open = app.metrics.connections.load(Relaxed);
                    if open >= app.config().bounds.connections as u64 {
                        app.metrics.refused.fetch_add(1, Relaxed);
                        drop(stream);
                        continue;
                    }
                    let open = Open::new(&app);
                    let one = connection(app.clone(), router.clone(), stream, peer, ending.clone());
                    connections.spawn(async move {
                        let _open = open;
                        one.await;
                    });
                }
                // No descriptors left, or the peer has gone already: others may do better.
                Err(_) => tokio::time::sleep(NO_SOCKETS).await,
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    drop(listening.listener);
    // Ends questions and jobs, with which streams of events end too.
    let stopping = tokio::task::spawn_blocking({
        let app = app.clone();
        move || app.stop()
    });
    ending.cancel();
    connections.close();
    let _late = tokio::time::timeout(LAST_WORDS, connections.wait()).await;
    drop(stopping.await);
}

/// Counts an open connection.
struct Open(Arc<App>);

impl Open {
    fn new(app: &Arc<App>) -> Self {
        app.metrics.connections.fetch_add(1, Relaxed);
        Self(app.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Relaxed);
    }
}

async fn connection(
    app: Arc<App>,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    ending: CancellationToken,
) {
    // Events are small and must go out at once.
    drop(stream.set_nodelay(true));
    let bounds = &app.config().bounds;
    let io = TokioIo::new(Stalling::new(stream, bounds.stall_time));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let request: Request = request.map(Body::new);
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time)
        .max_headers(MOST_HEADERS)
        .max_buf_size(HEADER_BYTES)
        .half_close(false)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    // A peer that breaks off or sends nonsense ends its own connection, and concerns nobody else.
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}
