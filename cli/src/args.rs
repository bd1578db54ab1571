//! The command line.

use crate::get::Get;
use crate::kubeconfig::Connection;
use crate::output::Format;
use crate::process::Threads;
use crate::token::Token;
use crate::work::Work;
use clap::{Parser, Subcommand};
use muster_observe::Verbosity;

const AFTER_HELP: &str = "Try it:
  muster demo                          a hub and three clusters on this machine
  muster get clusters                  the clusters of a hub
  muster work create app --cluster cluster1 -f app.yaml";

/// Federates Kubernetes clusters: a hub says what each cluster should run, a klusterlet on each keeps it so.
#[derive(Debug, Clone, Parser)]
#[command(name = "muster", version, after_help = AFTER_HELP, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much is logged.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// Commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// A hub and clusters on this machine, a sample application, a cluster cut off and brought back
    #[command(
        long_about = "Runs a hub and clusters in this process, joined over TLS on loopback: they register, an application is deployed to all of them, one is cut off while the application changes, and brought back. Then everything stays up to be tried, until Ctrl-C.",
        after_long_help = "Examples:\n  muster demo\n  muster demo --clusters 10\n  muster demo --dir ./demo   # keep the hub and the kubeconfigs\n  muster demo --exit         # end when all is shown: 0, or 1 and what failed"
    )]
    Demo(crate::demo::Options),
    /// Run a Kubernetes API server
    #[command(
        long_about = "Runs a Kubernetes API server, with no etcd and nothing else beside it: on disk, or in memory.",
        after_long_help = "Examples:\n  muster apiserver --data-dir ./data --write-kubeconfig admin.kubeconfig\n  muster apiserver --in-memory --bind 127.0.0.1:0 --write-kubeconfig cluster1.kubeconfig --simulate-nodes 3"
    )]
    Apiserver(muster_apiserver::options::ApiServerArgs),
    /// Run a hub on a Kubernetes API server, or with its own
    #[command(
        long_about = "Runs a hub: on the Kubernetes API server of a kubeconfig, or standalone with its own API server.",
        after_long_help = "Examples:\n  muster hub --kubeconfig hub.kubeconfig\n  muster hub --standalone --data-dir ./hub --bind 127.0.0.1:6443\n  muster hub --kubeconfig hub.kubeconfig --feature-gates ManagedClusterAutoApproval=true \\\n      --auto-approved-csr-users system:bootstrap:ocmhub"
    )]
    Hub(Box<crate::hub::Options>),
    /// Join this cluster to a hub and run what the hub says
    #[command(
        visible_alias = "agent",
        after_long_help = "Examples:\n  muster klusterlet --cluster-name cluster1 --bootstrap-kubeconfig bootstrap.kubeconfig \\\n      --spoke-kubeconfig cluster1.kubeconfig --hub-kubeconfig-dir ./cluster1"
    )]
    Klusterlet(Box<muster_klusterlet::Options>),
    /// Make, show and end the tokens that clusters join with
    Token(TokenArguments),
    /// Join this cluster to a hub with a token
    #[command(
        long_about = "Joins the cluster of a kubeconfig to a hub and runs its klusterlet. `muster token create` at the hub prints the whole command. Run again, it goes on with the credentials it got.",
        after_long_help = "Examples:\n  muster join --hub https://hub:6443 --token abcdef.0123456789abcdef --ca MIIB...\n  muster join --hub https://hub:6443 --token-file token --cluster-name cluster1 --kubeconfig cluster1.kubeconfig"
    )]
    Join(Box<crate::join::Join>),
    /// Let go of a cluster
    #[command(
        long_about = "Deletes a cluster from the hub: what the hub made on it goes first, then its rights, then the cluster itself. With --force, a cluster that will never come back goes at once, and what is left behind is told.",
        after_long_help = "Examples:\n  muster detach cluster1\n  muster detach cluster1 --force"
    )]
    Detach(DetachArguments),
    /// Show clusters or works of a hub
    #[command(
        after_long_help = "Examples:\n  muster get clusters --kubeconfig hub.kubeconfig\n  muster get works --cluster cluster1 -o wide"
    )]
    Get(GetArguments),
    /// Show what happens on the clusters to what works applied
    #[command(
        long_about = "Shows the events of the clusters about objects that works applied, and about what those own, as the klusterlets tell them at the hub. The latest is last.",
        after_long_help = "Examples:\n  muster events --work guestbook --cluster cluster1\n  muster events --types Warning\n  muster events -A -w"
    )]
    Events(EventsArguments),
    /// Make, change, delete and explain works
    #[command(
        long_about = "A work is a set of Kubernetes objects that one cluster should have. These commands make works, change and delete them, and tell what became of each of their objects.",
        after_long_help = "Examples:\n  muster work create guestbook --cluster cluster1 -f guestbook.yaml --wait\n  muster work apply guestbook --cluster cluster1 -f guestbook.yaml\n  muster work status guestbook --cluster cluster1\n  muster work delete guestbook --cluster cluster1"
    )]
    Work(WorkArguments),
    /// Print a completion script for a shell
    #[command(
        after_long_help = "Examples:\n  muster completion bash > /etc/bash_completion.d/muster\n  source <(muster completion zsh)"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// `muster get`.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArguments {
    /// What to get.
    #[command(subcommand)]
    pub what: Get,
    /// Which hub.
    #[command(flatten)]
    pub connection: Connection,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t, value_name = "FORM", global = true)]
    pub output: Format,
}

/// `muster events`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsArguments {
    /// Which events.
    #[command(flatten)]
    pub what: crate::events::Events,
    /// Which hub.
    #[command(flatten)]
    pub connection: Connection,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// `muster detach`.
#[derive(Debug, Clone, clap::Args)]
pub struct DetachArguments {
    /// What to detach.
    #[command(flatten)]
    pub what: crate::detach::Detach,
    /// Which hub.
    #[command(flatten)]
    pub connection: Connection,
}

/// `muster token`.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArguments {
    /// What to do.
    #[command(subcommand)]
    pub what: Token,
    /// Which hub.
    #[command(flatten)]
    pub connection: Connection,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t, value_name = "FORM", global = true)]
    pub output: Format,
}

/// `muster work`.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkArguments {
    /// What to do.
    #[command(subcommand)]
    pub what: Work,
    /// Which hub.
    #[command(flatten)]
    pub connection: Connection,
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t, value_name = "FORM", global = true)]
    pub output: Format,
}

impl Command {
    /// On how many threads it computes.
    pub fn threads(&self) -> Threads {
        match self {
            Self::Apiserver(_) | Self::Hub(_) | Self::Demo(_) => Threads::Many,
            _ => Threads::One,
        }
    }

    /// How much to log when nobody says.
    pub fn log_level(&self) -> &'static str {
        match self {
            Self::Klusterlet(_) | Self::Join(_) | Self::Apiserver(_) | Self::Hub(_) => "info",
            // What it shows on the way includes a link that is cut.
            Self::Demo(_) => "off",
            _ => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Wrong usage ends with code 2, help with 0.
    #[test]
    fn wrong_usage_is_said() {
        for (line, code, want) in [
            ("", 2, "Usage"),
            ("--nonsense", 2, "--nonsense"),
            ("get clusters --nonsense", 2, "--nonsense"),
            ("get pods", 2, "pods"),
            (
                "get works --cluster Cluster_1",
                2,
                "a cluster name must hold only lower case",
            ),
            ("get works guestbook", 2, "--cluster"),
            ("work create x --cluster c", 2, "--filename"),
            ("work diff x", 2, "--cluster"),
            ("work diff x --cluster c -n shop", 2, "--filename"),
            (
                "work create X --cluster c -f f",
                2,
                "a work's name must hold only lower case",
            ),
            ("work create x --cluster c -f f -n A", 2, "a namespace must"),
            ("work delete x --cluster c --timeout 5s", 2, "--wait"),
            ("work create x --cluster c --dry-run --wait -f f", 2, "--wait"),
            ("work apply x --cluster c --dry-run=both -f f", 2, "both"),
            ("work apply x --cluster c --manifest-limit 5 -f f", 2, "1024"),
            ("work apply x --cluster c -k d -f f", 2, "cannot be used with"),
            ("events --types Odd", 2, "Odd"),
            ("events -A --cluster c", 2, "cannot be used with"),
            (
                "work delete x --cluster c --wait --timeout 5",
                2,
                "write a duration like",
            ),
            ("get clusters -o xml", 2, "xml"),
            ("hub --standalone", 2, "--data-dir"),
            ("hub --data-dir d", 2, "--standalone"),
            (
                "hub --standalone --data-dir d --kubeconfig f",
                2,
                "cannot be used with",
            ),
            ("hub --bind nowhere --standalone --data-dir d", 2, "nowhere"),
            ("apiserver", 2, "--data-dir"),
            ("demo --clusters 0", 2, "0"),
            ("work create --help", 0, "Examples:"),
            ("token create --uses 0", 2, "0"),
            ("token create --clusters A*", 2, "lower case"),
            ("token revoke", 2, "ID"),
            ("join --hub https://h", 2, "--token"),
            (
                "join --hub http://h --token abcdef.0123456789abcdef",
                2,
                "https://",
            ),
            ("join --hub https://h --token short", 2, "a join token is"),
        ] {
            let error = Arguments::try_parse_from(std::iter::once("muster").chain(line.split_whitespace()))
                .unwrap_err();
            assert_eq!(error.exit_code(), code, "{line}: {error}");
            assert!(error.to_string().contains(want), "{line}: {error}");
        }
    }

    #[test]
    fn what_works_as_with_kubectl() {
        for line in [
            "get mcl",
            "get clusters a b -o yaml --context x --kubeconfig f",
            "get --kubeconfig f work -c c w",
            "work create x -c c -f a.yaml -f - -f dir",
            "work apply x -c c -R -f a.yaml b.yaml --dry-run -o yaml",
            "work apply x -c c -f a --dry-run=server",
            "work apply x -c c -k dir",
            "work delete a b -c c",
            "work list -c c -w",
            "get clusters -w",
            "events --work w -c c --types warning -w -o wide",
            "work --context x status w --cluster c -o wide",
            "work diff w -c c",
            "work diff w -c c -f a.yaml -n shop --timeout 5s -o json",
            "agent --cluster-name c",
            "completion bash",
            "token create --ttl 1h --uses 3 --clusters burst-* --set s --label a=b,c=d --accept -o json",
            "token ls",
            "detach c --force --timeout 10s",
            "join --hub https://h:1 --token abcdef.0123456789abcdef --cluster-name c -- --agent-id a",
            "version -v",
        ] {
            Arguments::try_parse_from(std::iter::once("muster").chain(line.split_whitespace())).unwrap();
        }
    }
}
