//! Hubs that a cluster may join, and the cluster.

use super::super::bootstrap::Bootstrap;
use super::super::clock::Clock;
use super::super::credentials::{Credentials, Place};
use super::super::trouble::Trouble;
use super::super::{Connect, Context, Spoke};
use super::stub::{Caller, Stub};
use crate::{Error, Options};
use clap::Parser as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One hub and a cluster.
pub fn one() -> (Stub, Stub, Hubs) {
    let clock = clock();
    let (hub, spoke) = (Stub::new("hub", &clock), Stub::new("spoke", &clock));
    let hubs = Hubs([("https://hub".to_owned(), hub.clone())].into());
    (hub, spoke, hubs)
}

/// Two hubs and a cluster.
pub fn two() -> (Stub, Stub, Stub, Hubs) {
    let clock = clock();
    let [one, two, spoke] = ["hub", "hub2", "spoke"].map(|name| Stub::new(name, &clock));
    let urls = [("https://hub", &one), ("https://hub2", &two)];
    let hubs = Hubs(urls.map(|(url, hub)| (url.to_owned(), hub.clone())).into());
    (one, two, spoke, hubs)
}

/// Hubs by URL.
#[derive(Clone, Default)]
pub struct Hubs(pub BTreeMap<String, Stub>);

impl Hubs {
    fn find(&self, url: &str) -> Stub {
        self.0
            .get(url)
            .unwrap_or_else(|| panic!("there is no hub {url}"))
            .clone()
    }
}

impl Connect for Hubs {
    fn agent<'a>(
        &'a self,
        credentials: &'a Credentials,
        _: &'a Place,
    ) -> BoxFuture<'a, Result<Client, Error>> {
        let url = credentials.server().unwrap().url;
        let (_, validity) = credentials.certificate().unwrap();
        let caller = Caller::Agent {
            not_after: validity.not_after,
        };
        Box::pin(std::future::ready(Ok(self.find(&url).client(caller))))
    }

    fn bootstrap<'a>(&'a self, bootstrap: &'a Bootstrap) -> BoxFuture<'a, Result<Client, Error>> {
        let hub = self.find(&bootstrap.server.url);
        let text = serde_json::to_value(&bootstrap.config.auth_infos).unwrap();
        let token = text[0]["user"]["token"].as_str().unwrap_or_default().to_owned();
        Box::pin(std::future::ready(Ok(hub.client(Caller::Bootstrap(token)))))
    }
}

pub fn kubeconfig(url: &str, token: &str) -> String {
    format!(
        "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: \"{url}\"}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\n"
    )
}

#[derive(clap::Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
}

pub fn options(args: &[&str]) -> Options {
    let options = Args::try_parse_from([&["klusterlet"], args].concat())
        .unwrap_or_else(|e| panic!("{e}"))
        .options;
    options.check().unwrap();
    options
}

/// A clock that runs with tokio's.
fn clock() -> Clock {
    let (base, start) = (
        Timestamp::from_second(1_790_000_000).unwrap(),
        tokio::time::Instant::now(),
    );
    Clock::new(move || base + SignedDuration::try_from(start.elapsed()).unwrap())
}

/// A context of a cluster before `hubs`.
pub fn context(spoke: &Stub, hubs: &Hubs, options: Options) -> Arc<Context> {
    Arc::new(Context {
        spoke: Spoke {
            client: spoke.client(Caller::Admin),
            url: format!("https://{}", spoke.name),
            ca: Vec::new(),
            uid: Some(format!("uid-of-{}", spoke.name)),
        },
        gates: options.gates().unwrap(),
        place: Place {
            dir: options.hub_kubeconfig_dir.clone(),
            namespace: options.namespace.clone(),
            secret: options.hub_kubeconfig_secret.clone(),
        },
        // Its own offset: what one hub taught is not the other test's.
        clock: spoke.clock.clone(),
        connect: Arc::new(hubs.clone()),
        agent_id: Some("installation".into()),
        metrics: Arc::default(),
        trouble: Trouble::default(),
        options,
    })
}
