//! Command line of the API server, shared by its own binary and the `muster` one.

use crate::rest::inflight;
use crate::server::ServerOptions;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Flags of the API server.
#[derive(Debug, Clone, Args)]
pub struct ApiServerArgs {
    /// Address to serve on; port 0 takes any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6443")]
    pub bind: SocketAddr,
    /// Directory for the store, the CA and the keys. Made when it is not there.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "in_memory",
        conflicts_with = "in_memory"
    )]
    pub data_dir: Option<PathBuf>,
    /// Keep nothing on disk.
    #[arg(long)]
    pub in_memory: bool,
    /// Write a kubeconfig of an administrator here once the server is ready.
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Server URL in the written kubeconfig, where clients reach the server under another address than it binds.
    #[arg(long, value_name = "URL")]
    pub kubeconfig_server: Option<String>,
    /// DNS names and IP addresses the serving certificate is good for, besides loopback and the bind address.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub server_names: Vec<String>,
    /// Reading requests worked on at once; more wait a moment, then get a 429. 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = inflight::READING)]
    pub max_requests_inflight: usize,
    /// Writing requests worked on at once; more wait a moment, then get a 429. 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = inflight::WRITING)]
    pub max_mutating_requests_inflight: usize,
    /// Make the cluster look alive: so many ready Nodes, and workloads that become ready.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub simulate_nodes: usize,
}

impl From<&ApiServerArgs> for ServerOptions {
    fn from(args: &ApiServerArgs) -> Self {
        Self {
            bind: args.bind,
            data_dir: if args.in_memory {
                None
            } else {
                args.data_dir.clone()
            },
            simulate_nodes: args.simulate_nodes,
            server_names: args.server_names.clone(),
            external_url: args.kubeconfig_server.clone(),
            max_requests_inflight: args.max_requests_inflight,
            max_mutating_requests_inflight: args.max_mutating_requests_inflight,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ApiServerArgs,
    }

    #[test]
    fn a_place_for_data_is_needed() {
        assert!(Cli::try_parse_from(["x"]).is_err());
        assert!(Cli::try_parse_from(["x", "--in-memory", "--data-dir", "d"]).is_err());
        let cli = Cli::try_parse_from(["x", "--data-dir", "d", "--server-names", "a,b"]).unwrap();
        let options = ServerOptions::from(&cli.args);
        assert_eq!(options.data_dir, Some("d".into()));
        assert_eq!(options.server_names, ["a", "b"]);
    }
}
