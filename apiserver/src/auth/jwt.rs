//! ServiceAccount tokens on the wire: JWTs (RFC 7519) signed with ES256 (RFC 7518 §3.4).

use crate::pki::{PkiError, load_or_create_key, new_key};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// File of the key that signs ServiceAccount tokens.
pub const KEY_FILE: &str = "sa.key";

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The key that signs ServiceAccount tokens and tells them from others'. Clones share it.
#[derive(Clone)]
pub struct ServiceAccountKeys(Arc<Keys>);

struct Keys {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl std::fmt::Debug for ServiceAccountKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountKeys")
            .field("id", &self.0.id)
            .finish_non_exhaustive()
    }
}

impl ServiceAccountKeys {
    /// The key kept in `dir`, made when it is not there; without a directory a new one, and every token dies with the process.
    pub fn load_or_create(dir: Option<&Path>) -> Result<Self, PkiError> {
        let key = match dir {
            None => new_key()?,
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .map_err(|e| PkiError::File(format!("{}: {e}", dir.display())))?;
                load_or_create_key(&dir.join(KEY_FILE), || true)?
            }
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &random)
            .map_err(|e| PkiError::Key(e.to_string()))?;
        Ok(Self(Arc::new(Keys {
            key,
            id: URL_SAFE_NO_PAD.encode(digest),
            random,
        })))
    }

    /// Signs claims into a token.
    pub fn sign(&self, claims: &Value) -> Result<String, PkiError> {
        let header = json!({ "alg": "ES256", "kid": self.0.id });
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let body = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .0
            .key
            .sign(&self.0.random, body.as_bytes())
            .map_err(|_| PkiError::Random)?;
        Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed; `None` for any other string.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (body, signature) = token.rsplit_once('.')?;
        let (header, claims) = body.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        // Only what `sign` writes: an attacker does not get to choose the algorithm (RFC 8725 §3.1).
        if header["alg"] != "ES256" || header["kid"] != self.0.id.as_str() {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0.key.public_key());
        public.verify(body.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// The public key as a JSON Web Key Set (RFC 7517): what `/openid/v1/jwks` serves.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
        let point = self.0.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.0.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] })
    }
}

/// What `/.well-known/openid-configuration` serves for tokens of `issuer` with keys at `jwks_uri` (OpenID Connect Discovery).
pub fn openid_configuration(issuer: &str, jwks_uri: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_verifies() {
        let keys = ServiceAccountKeys::load_or_create(None).unwrap();
        let claims = json!({ "sub": "x", "exp": 5 });
        let token = keys.sign(&claims).unwrap();
        assert_eq!(keys.verify(&token), Some(claims.clone()));

        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "kid": keys.0.id }).to_string());
        let more = URL_SAFE_NO_PAD.encode(json!({ "sub": "y", "exp": 5 }).to_string());
        let foreign = ServiceAccountKeys::load_or_create(None)
            .unwrap()
            .sign(&claims)
            .unwrap();
        let bad = [
            String::new(),
            "a.b.c".into(),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{more}.{}", parts[0], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{token}A"),
            format!("{token}.{}", parts[2]),
            foreign,
            "x".repeat(MAX_TOKEN + 1),
        ];
        for token in bad {
            assert_eq!(keys.verify(&token), None, "{token}");
        }
    }

    #[test]
    fn the_key_is_kept_and_published() {
        let dir = tempfile::tempdir().unwrap();
        let first = ServiceAccountKeys::load_or_create(Some(dir.path())).unwrap();
        let token = first.sign(&json!({ "a": 1 })).unwrap();
        let second = ServiceAccountKeys::load_or_create(Some(dir.path())).unwrap();
        assert_eq!(second.verify(&token), Some(json!({ "a": 1 })));
        assert_eq!(first.jwks(), second.jwks());
        assert_eq!(first.jwks()["keys"][0]["x"].as_str().unwrap().len(), 43);
        assert!(openid_configuration("https://i", "https://j")["jwks_uri"] == "https://j");
    }
}
