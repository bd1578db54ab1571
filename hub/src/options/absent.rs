//! Flags of Open Cluster Management's hub for what is not there: other ways to register than by certificate, and the import of
//! clusters. They are known by name, so that whoever moves a manifest is told what is missing instead of that he mistyped. An
//! empty value is their default, and says nothing.

/// The flags. None can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Absent {
    #[arg(long, hide = true, value_parser = grpc)]
    auto_approved_grpc_users: Vec<String>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_ca_file: Option<String>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_key_file: Option<String>,
    #[arg(long, hide = true, value_parser = grpc)]
    grpc_signing_duration: Option<String>,
    #[arg(long, hide = true, value_parser = iam)]
    auto_approved_arn_patterns: Vec<String>,
    #[arg(long, hide = true, value_parser = iam)]
    hub_cluster_arn: Option<String>,
    #[arg(long, hide = true, value_parser = iam)]
    aws_resource_tags: Vec<String>,
    #[arg(long, hide = true, value_parser = import)]
    hub_apiserver_url: Option<String>,
    #[arg(long, hide = true, value_parser = import)]
    agent_image: Option<String>,
    #[arg(long, hide = true, value_parser = import)]
    bootstrap_serviceaccount: Option<String>,
    #[arg(long, hide = true, value_parser = import)]
    import_renderers: Vec<String>,
    #[arg(long, hide = true, value_parser = import)]
    image_pull_secret_name: Option<String>,
    #[arg(long, hide = true, value_parser = file)]
    config: Option<String>,
}

fn refuse(value: &str, why: &str) -> Result<String, String> {
    if value.is_empty() {
        Ok(String::new())
    } else {
        Err(format!("{why}; leave the flag out"))
    }
}

fn grpc(value: &str) -> Result<String, String> {
    refuse(
        value,
        "registration over gRPC is not there: clusters register by certificate (csr), at the hub's API server",
    )
}

fn iam(value: &str) -> Result<String, String> {
    refuse(
        value,
        "registration by AWS IAM (awsirsa) is not there: clusters register by certificate (csr)",
    )
}

fn import(value: &str) -> Result<String, String> {
    refuse(
        value,
        "the import of clusters (ClusterImporter) is not there: a cluster joins by itself, with the line that \
         `muster token create` prints",
    )
}

fn file(value: &str) -> Result<String, String> {
    refuse(
        value,
        "a configuration file is not there: all that can be set is a flag",
    )
}

/// A way to register: only that by certificate is there.
pub(super) fn only_csr(value: &str) -> Result<String, String> {
    match value {
        "csr" => Ok(value.to_owned()),
        _ => Err("it is not there: only csr is, registration by certificate".to_owned()),
    }
}
