//! From a kubeconfig to a client of a hub that answers.

use std::{path::Path, time::Duration};

use k8s_openapi::ByteString;
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use muster_crds::validity::Validity;

use crate::{
    certificate,
    error::{Error, innermost},
};

/// How long a hub may take to answer at the start.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// A hub that answered.
pub struct Connected {
    /// Its client.
    pub client: Client,
    /// When the client certificate it is reached with is good, where there is one.
    pub certificate: Option<Validity>,
}

/// A client of the hub that `kubeconfig` names (without one, of the cluster this pod runs in), once it answered.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Connected, Error> {
    let (config, path) = if let Some(path) = kubeconfig {
        let wrong = |source| Error::Kubeconfig {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let file = Kubeconfig::read_from(path).map_err(wrong)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        (config.map_err(wrong)?, path)
    } else {
        let config = Config::infer().await.map_err(|source| Error::NoKubeconfig {
            source: Box::new(source),
        })?;
        (config, Path::new("of the environment"))
    };
    let url = config.cluster_url.to_string();
    let certificate = client_certificate(&config.auth_info);
    let client = Client::try_from(config).map_err(|source| Error::Credentials {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    match tokio::time::timeout(FIRST_ANSWER, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            tracing::info!(url, version = version.git_version, "connected");
            Ok(Connected { client, certificate })
        }
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => Err(Error::Refused {
            url,
            reason: status.message,
        }),
        Ok(Err(error)) => Err(Error::Unreachable {
            url,
            reason: innermost(&error),
        }),
        Err(_) => Err(Error::Unreachable {
            url,
            reason: format!("no answer within {} s", FIRST_ANSWER.as_secs()),
        }),
    }
}

/// When the client certificate of a kubeconfig's user is good.
fn client_certificate(user: &AuthInfo) -> Option<Validity> {
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => {
            let bytes: ByteString = serde_json::from_value(data.as_str().into()).ok()?;
            bytes.0
        }
        (None, Some(path)) => std::fs::read(path).ok()?,
        (None, None) => return None,
    };
    certificate::validity(&pem)
}
