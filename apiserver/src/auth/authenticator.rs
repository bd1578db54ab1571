//! From a connection's certificate and a request's headers to who is asking.

use super::authorizer::Authorizer;
use super::impersonate;
use super::jwt::ServiceAccountKeys;
use super::tokens::{self, CREDENTIAL_ID, ISSUER, Verified};
use super::types::{ALL_AUTHENTICATED, UserInfo};
use crate::error::ApiError;
use crate::pki::ClientCert;
use crate::serve::Peer;
use crate::store::Store;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::SystemRandom;
use std::sync::Arc;

/// A token that is good for as long as the server runs with it.
#[derive(Clone)]
pub struct StaticToken {
    /// What to send.
    pub token: String,
    /// Who it is.
    pub user: UserInfo,
}

impl std::fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticToken")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Tells who is asking.
pub struct Authenticator {
    store: Store,
    keys: ServiceAccountKeys,
    authorizer: Arc<Authorizer>,
    static_tokens: Vec<StaticToken>,
    compare: Compare,
    audiences: Vec<String>,
}

/// Compares secrets in a time that tells nothing of where they differ, nor of their lengths: what is compared are their MACs
/// under a key nobody knows.
struct Compare(hmac::Key);

impl Compare {
    fn new() -> Result<Self, ApiError> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| ApiError::Internal("no random numbers from the operating system".into()))
    }

    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        hmac::verify(&self.0, a, hmac::sign(&self.0, b).as_ref()).is_ok()
    }
}

impl Authenticator {
    /// An authenticator for tokens of `keys` and of Secrets in `store`. `authorizer` decides who may impersonate.
    pub fn new(
        store: Store,
        keys: ServiceAccountKeys,
        authorizer: Arc<Authorizer>,
        static_tokens: Vec<StaticToken>,
    ) -> Result<Self, ApiError> {
        let compare = Compare::new()?;
        Ok(Self {
            store,
            keys,
            authorizer,
            static_tokens,
            compare,
            audiences: vec![ISSUER.into()],
        })
    }

    /// The keys of ServiceAccount tokens.
    pub fn keys(&self) -> &ServiceAccountKeys {
        &self.keys
    }

    /// Who sends a request with `headers` over the connection of `peer`.
    ///
    /// A client certificate goes before a bearer token. A credential that is wrong is 401, none at all is anonymous. Then
    /// impersonation, if asked for and allowed (403 otherwise).
    pub fn authenticate(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<UserInfo, ApiError> {
        let user = self.identify(peer, headers, now)?;
        match impersonate::requested(headers)? {
            None => Ok(user),
            Some(wanted) => wanted.authorize(&user, |attributes| self.authorizer.require(&user, attributes)),
        }
    }

    fn identify(
        &self,
        peer: Option<&Peer>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<UserInfo, ApiError> {
        // A certificate that names nobody is as good as none.
        let cert = peer
            .and_then(|p| p.cert.as_ref())
            .filter(|c| !c.common_name.is_empty());
        if let Some(cert) = cert.filter(|c| c.is_valid_at(now)) {
            return Ok(cert_user(cert));
        }
        match bearer(headers) {
            Some(token) => self
                .authenticate_token(token, &self.audiences, now)
                .map(|v| v.user)
                .map_err(|why| {
                    tracing::debug!(why, "bearer token refused");
                    ApiError::Unauthorized
                }),
            // A certificate that is no good is a wrong credential, not none.
            None if cert.is_some() || peer.is_some_and(|p| p.rejected.is_some()) => {
                Err(ApiError::Unauthorized)
            }
            None => Ok(UserInfo::anonymous()),
        }
    }

    /// Whose bearer token this is, and for which of `audiences`; empty: the API server's own. The error says why not, without
    /// the token, for logs and TokenReviews.
    pub fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Verified, String> {
        let audiences = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        // Static and bootstrap tokens are for the API server itself, whatever audience is asked about.
        let own = |user| Verified {
            user,
            audiences: self.audiences.clone(),
        };
        let mut found = None;
        for known in &self.static_tokens {
            if self.compare.same(known.token.as_bytes(), token.as_bytes()) {
                found = Some(&known.user);
            }
        }
        if let Some(user) = found {
            return Ok(own(user.clone().with_group(ALL_AUTHENTICATED)));
        }
        if let Some((id, secret)) = tokens::split_bootstrap(token) {
            let same = |a: &[u8], b: &[u8]| self.compare.same(a, b);
            return tokens::check_bootstrap(id, secret, &self.store, same, now).map(own);
        }
        let claims = self.keys.verify(token).ok_or("invalid bearer token")?;
        if claims["iss"] == tokens::ISSUER_OF_SECRETS {
            let common = audiences.iter().filter(|a| self.audiences.contains(a));
            let audiences: Vec<String> = common.cloned().collect();
            if audiences.is_empty() {
                return Err("the token is for the API server alone".into());
            }
            let same = |a: &[u8], b: &[u8]| self.compare.same(a, b);
            let user = tokens::check_secret_claims(token, &claims, &self.store, same, now)?;
            return Ok(Verified { user, audiences });
        }
        tokens::check_claims(&claims, audiences, &self.store, now)
    }
}

/// CN is the user, every O a group.
fn cert_user(cert: &ClientCert) -> UserInfo {
    let mut user = UserInfo::new(&cert.common_name, &cert.organizations).with_group(ALL_AUTHENTICATED);
    // Which credential it was, for audit and CSRs (KEP-4193).
    user.extra.insert(
        CREDENTIAL_ID.into(),
        vec![format!("X509SHA256={}", cert.fingerprint)],
    );
    user
}

/// The token of `Authorization: Bearer …`. Other schemes are nobody's here, as in Kubernetes.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
