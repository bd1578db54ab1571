//! A `kube::Client` that calls this server in process: same code, no TLS, no sockets.

use super::Api;
use super::respond::Body;
use crate::auth::UserInfo;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::convert::Infallible;
use std::task::{Context, Poll};

/// The API as a service that speaks for one user.
#[derive(Debug, Clone)]
pub struct AsUser {
    api: Api,
    user: UserInfo,
}

impl tower::Service<Request<kube::client::Body>> for AsUser {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<kube::client::Body>) -> Self::Future {
        request.extensions_mut().insert(self.user.clone());
        let api = self.api.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}

impl Api {
    /// A client of this server that speaks for the server itself and may do everything.
    pub fn client(&self) -> kube::Client {
        self.client_as(UserInfo::loopback())
    }

    /// A client of this server that speaks for `user`. Authorization applies as to anyone.
    pub fn client_as(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(
            AsUser {
                api: self.clone(),
                user,
            },
            "default",
        )
    }
}
