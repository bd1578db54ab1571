//! The HTTP side: a few paths, read only, for a few clients at a time.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::Observed;

/// More connections than this at a time are closed at once: a handful of probes and scrapers is all there should be.
const CONNECTIONS: usize = 64;
/// A client that takes longer to ask is sent away.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// When no connection can be taken, for want of files, it is tried again after this.
const PAUSE: Duration = Duration::from_millis(200);

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Takes the address, so that one that cannot be had is told before anything else is begun.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("address {address} is already in use; choose another one with --listen")
            }
            _ => format!("cannot listen on {address}: {error}"),
        })
}

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, observed: Arc<Observed>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                connections.spawn(connection(stream, observed.clone()));
            }
            Ok((_, peer)) => tracing::debug!(%peer, "too many connections ask for metrics and health"),
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, observed: Arc<Observed>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer(
            &observed,
            request.method(),
            request.uri().path(),
            request.uri().query(),
        );
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASK_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away harms nobody.
    let _ = served.await;
}

fn answer(observed: &Observed, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned());
    }
    let checks = match path {
        "/metrics" => {
            let mut metrics = String::new();
            return match text::encode(&mut metrics, &observed.registry) {
                Ok(()) => respond(StatusCode::OK, METRICS, metrics),
                Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            };
        }
        "/livez" => &observed.live,
        "/readyz" => &observed.ready,
        "/healthz" => &observed.healthy,
        _ => {
            let paths = "there are /metrics, /livez, /readyz and /healthz\n";
            return respond(StatusCode::NOT_FOUND, PLAIN, paths.to_owned());
        }
    };
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|one| one == "verbose" || one.starts_with("verbose="))
    });
    match checks.ask(path.trim_start_matches('/'), verbose) {
        Ok(text) => respond(StatusCode::OK, PLAIN, text),
        Err(text) => respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text),
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(observed: &Observed, path: &str) -> (u16, String) {
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(path, query)| (path, Some(query)));
        let response = answer(observed, &Method::GET, path, query);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_path_tells_its_own() {
        let mut observed = Observed::default();
        let counter = Counter::<u64>::default();
        observed.registry().register("eggs", "Eggs laid", counter.clone());
        counter.inc_by(3);
        observed.live("a", || Ok(()));
        observed.ready("b", || Err("not yet".to_owned()));
        let (status, metrics) = ask(&observed, "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            metrics.contains("eggs_total 3\n") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        assert!(metrics.contains("process_start_time_seconds "), "{metrics}");
        assert_eq!(ask(&observed, "/livez").await, (200, "ok".to_owned()));
        assert_eq!(ask(&observed, "/healthz").await, (200, "ok".to_owned()));
        let (status, text) = ask(&observed, "/readyz?verbose").await;
        assert_eq!(status, 500);
        assert!(
            text.contains("[+]a ok") && text.contains("[-]b failed: not yet"),
            "{text}"
        );
        assert_eq!(ask(&observed, "/secrets").await.0, 404);
        let refused = answer(&observed, &Method::POST, "/metrics", None);
        assert_eq!(refused.status(), 405);
    }

    #[tokio::test]
    async fn it_answers_over_tcp_and_ends_when_told() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = bind(address).await.unwrap_err();
        assert!(
            taken.contains("already in use") && taken.contains("--listen"),
            "{taken}"
        );
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, Arc::default(), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nok"),
            "{text}"
        );
        // One that never asks does not keep it from ending.
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        served.await.unwrap();
    }
}
