//! From a kubeconfig to a client of a hub that answers.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::error::{Error, innermost};

/// How long a hub may take to answer at the start.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// A client of the hub that `kubeconfig` names (without one, of the cluster this pod runs in), once it answered.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
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
    let client = Client::try_from(config).map_err(|source| Error::Credentials {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    match tokio::time::timeout(FIRST_ANSWER, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            tracing::info!(url, version = version.git_version, "connected");
            Ok(client)
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
