//! Flags of Open Cluster Management's hub for what is not there: other ways to register than by certificate, and the import of
//! clusters. They are known by name, so that whoever moves a manifest is told what is missing instead of that he mistyped. An
//! empty value is their default, and says nothing.

/// What a flag without a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nothing;

/// The flags. None can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Absent {
    #[arg(long, hide = true, value_parser = grpc)]
    auto_approved_grpc_users: Option<Nothing>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_ca_file: Option<Nothing>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_key_file: Option<Nothing>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_signing_duration: Option<Nothing>,
    #[arg(long, hide = true, value_parser = iam)]
    auto_approved_arn_patterns: Option<Nothing>,
    #[arg(long, hide = true, value_parser = iam)]
    hub_cluster_arn: Option<Nothing>,
    #[arg(long, hide = true, value_parser = iam)]
    aws_resource_tags: Option<Nothing>,
    #[arg(long, hide = true, value_parser = import)]
    hub_apiserver_url: Option<Nothing>,
    #[arg(long, hide = true, value_parser = import)]
    agent_image: Option<Nothing>,
    #[arg(long, hide = true, value_parser = import)]
    bootstrap_serviceaccount: Option<Nothing>,
    #[arg(long, hide = true, value_parser = import)]
    import_renderers: Option<Nothing>,
    #[arg(long, hide = true, value_parser = import)]
    image_pull_secret_name: Option<Nothing>,
    #[arg(long, hide = true, value_parser = file)]
    config: Option<Nothing>,
    #[arg(long, hide = true, value_parser = ends)]
    terminate_on_files: Option<Nothing>,
}

fn refuse(value: &str, why: &str) -> Result<Nothing, String> {
    if value.is_empty() {
        Ok(Nothing)
    } else {
        Err(format!("{why}; leave the flag out"))
    }
}

fn grpc(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "registration over gRPC is not there: clusters register by certificate (csr), at the hub's API server",
    )
}

fn iam(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "registration by AWS IAM (awsirsa) is not there: clusters register by certificate (csr)",
    )
}

fn import(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "the import of clusters (ClusterImporter) is not there: a cluster joins by itself, with the line that \
         `muster token create` prints",
    )
}

fn file(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "a configuration file is not there: all that can be set is a flag",
    )
}

/// What OCM's hub ends for, this one does not, and whoever relies on it must know.
fn ends(value: &str) -> Result<Nothing, String> {
    refuse(
        value,
        "the hub does not end when a file changes: it renews its webhook's certificates itself and in place; start the hub \
         anew (kubectl rollout restart) when its kubeconfig changes",
    )
}

/// A way to register: only that by certificate is there.
pub(super) fn only_csr(value: &str) -> Result<String, String> {
    match value {
        "csr" => Ok(value.to_owned()),
        _ => Err("it is not there: only csr is, registration by certificate".to_owned()),
    }
}
