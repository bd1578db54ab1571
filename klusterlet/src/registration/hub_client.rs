//! The client of the hub: its credentials can be exchanged while it is in use, and it notices what every answer tells
//! besides: that the credentials are refused, and what time it is there.

use super::clock::Clock;
use arc_swap::ArcSwap;
use kube::Client;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// A client whose credentials can be exchanged: requests begun after an exchange use the new ones.
#[derive(Clone)]
pub struct HubClient {
    inner: Arc<ArcSwap<Client>>,
    clock: Clock,
    refused: Arc<Notify>,
    /// Requests wait until this is true, or its sender gone.
    open: watch::Receiver<bool>,
}

impl HubClient {
    /// Begins with a client.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self {
            inner: Arc::new(ArcSwap::from_pointee(client)),
            clock,
            refused: Arc::default(),
            open: watch::channel(true).1,
        }
    }

    /// The same, but nothing is asked before `true` is sent, or the sender dropped.
    pub fn held(client: Client, clock: Clock) -> (Self, watch::Sender<bool>) {
        let (tell, open) = watch::channel(false);
        let held = Self {
            open,
            ..Self::new(client, clock)
        };
        (held, tell)
    }

    /// Exchanges the client.
    pub fn exchange(&self, client: Client) {
        self.inner.store(Arc::new(client));
    }

    /// Returns when the hub answered 401 since the last call.
    pub async fn refused(&self) {
        self.refused.notified().await;
    }

    /// A client that always uses the present one.
    pub fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let this = this.clone();
            async move {
                // Gone is as good as open.
                let _ = this.open.clone().wait_for(|open| *open).await;
                let client = this.inner.load_full();
                let sent = this.clock.here();
                let answer = client.send(request).await?;
                if answer.status() == http::StatusCode::UNAUTHORIZED {
                    this.refused.notify_one();
                }
                if let Some(date) = answer
                    .headers()
                    .get(http::header::DATE)
                    .and_then(|d| d.to_str().ok())
                    && let Some(offset) = this.clock.learn(sent, date)
                {
                    tracing::warn!(
                        "the clocks differ: the hub's is {} s {} of this cluster's; times are compared by the hub's",
                        offset.as_secs().abs(),
                        if offset.is_negative() { "behind" } else { "ahead" }
                    );
                }
                Ok::<_, kube::Error>(answer)
            }
        });
        Client::new(service, "default")
    }
}
