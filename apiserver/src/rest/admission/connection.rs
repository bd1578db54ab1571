//! Connections to webhooks, kept for the next call: a handshake costs more than most answers.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

/// How many are kept for one webhook: as many as are in use when clusters come in hundreds, or each wave of writes would
/// begin with handshakes.
const KEPT: usize = 64;
/// How long one is kept without a call.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// An open connection. It ends with this value.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
    address: (String, u16),
    since: Instant,
}

impl Connection {
    /// HTTP on a connection to `address`.
    pub async fn open(stream: TlsStream<TcpStream>, address: (String, u16)) -> hyper::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move {
            // How it ended, the request says.
            let _ = connection.await;
        });
        Ok(Self {
            sender,
            task,
            address,
            since: Instant::now(),
        })
    }

    /// Sends one request.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections of one webhook that nobody uses at the moment.
#[derive(Debug, Default)]
pub struct Idle(Mutex<Vec<Connection>>);

impl Idle {
    /// The one to `address` that was used last.
    pub fn take(&self, address: &(String, u16)) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|c| c.address == *address && !c.sender.is_closed() && c.since.elapsed() < KEPT_FOR);
        idle.pop()
    }

    /// Keeps one whose answer was read to its end.
    pub fn keep(&self, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.since = Instant::now();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }
}
