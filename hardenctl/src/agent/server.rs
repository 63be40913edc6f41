//! `/metrics`, by HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections that are served at once; others wait.
const MAX_CONNECTIONS: usize = 16;

/// How long one is served. Each is for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// The content type for Prometheus: the OpenMetrics specification, "Protocol Negotiation".
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, registry: Registry) {
    let registry = Arc::new(registry);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open, say.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &registry))));
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            // A client that disconnects, or takes too long, gets no answer.
            drop(tokio::time::timeout(PATIENCE, connection).await);
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<String> {
    let mut text = String::new();
    let (status, kind) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match encode(&mut text, registry) {
            Ok(()) => (StatusCode::OK, OPENMETRICS),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain"),
        },
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "text/plain"),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain"),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
