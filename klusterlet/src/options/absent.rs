//! Flags of Open Cluster Management's agents for what is not there: other ways to register, and to get works, than by
//! certificate and through the hub's API. They are known by name, so that whoever moves a manifest is told what is missing
//! instead of that he mistyped. An empty value is their default, and says nothing.

/// What a flag without a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nothing;

/// The flags. None can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Absent {
    #[arg(long, hide = true, value_parser = iam)]
    hub_cluster_arn: Option<Nothing>,
    #[arg(long, hide = true, value_parser = iam)]
    managed_cluster_arn: Option<Nothing>,
    #[arg(long, hide = true, value_parser = iam)]
    managed_cluster_role_suffix: Option<Nothing>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_bootstrap_config: Option<Nothing>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_config: Option<Nothing>,
    #[arg(long, hide = true, value_parser = broker)]
    cloudevents_client_id: Option<Nothing>,
    #[arg(long, hide = true, value_parser = broker)]
    cloudevents_client_codecs: Option<Nothing>,
    #[arg(long, hide = true, value_parser = file)]
    config: Option<Nothing>,
}

fn refuse(value: &str, why: &str) -> Result<Nothing, String> {
    if value.is_empty() {
        Ok(Nothing)
    } else {
        Err(format!("{why}; leave the flag out"))
    }
}

fn iam(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "registration by AWS IAM (awsirsa) is not there: clusters register by certificate (csr)",
    )
}

fn grpc(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "registration over gRPC is not there: clusters register by certificate (csr), at the hub's API server",
    )
}

fn broker(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "works over a message broker or gRPC are not there: they come from the hub's API server (kube)",
    )
}

fn file(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "a configuration file is not there: all that can be set is a flag",
    )
}

/// A way to register: only that by certificate is there.
pub(super) fn only_csr(value: &str) -> Result<String, String> {
    match value {
        "" | "csr" => Ok(value.to_owned()),
        _ => Err("it is not there: only csr is, registration by certificate".to_owned()),
    }
}

/// Where works come from: only the hub's API server is there.
pub(super) fn only_kube(value: &str) -> Result<String, String> {
    match value {
        "kube" => Ok(value.to_owned()),
        _ => Err("it is not there: only kube is, works from the hub's API server".to_owned()),
    }
}
