//! Join tokens as `muster token create` makes them, without the program.

use crate::kube::Kube;
use anyhow::Context as _;
use jiff::Timestamp;
use muster::token::Create;

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// Path of the Secret of a token, whole or only its id.
pub fn secret_path(token: &str) -> String {
    let id = token.split('.').next().unwrap_or_default();
    format!("{SECRETS}/{}", muster_hub::token::secret_name(id))
}

/// Makes a token; `flags` are those of `muster token create`.
pub async fn make(hub: &Kube, flags: &[&str]) -> anyhow::Result<String> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }
    let line = std::iter::once("create").chain(flags.iter().copied());
    let line = <Line as clap::Parser>::try_parse_from(line)?;
    let (secret, token) = muster::token::secret(&line.create, Timestamp::now())?;
    let secret = serde_json::to_value(secret)?;
    hub.create(SECRETS, &secret)
        .await
        .context("making a join token")?;
    Ok(token)
}
