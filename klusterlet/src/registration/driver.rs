//! Does what `machine` decides, and brings it the news: Secrets and files that changed, answers of hubs, certificates.

mod doing;
mod news;

use super::bootstrap::{self, Bootstrap, Source};
use super::credentials::{self, Credentials, Validity};
use super::hub_client::HubClient;
use super::kubeconfig::Server;
use super::machine::{Action, Event, State};
use super::rights::Rights;
use super::rotation::Holding;
use super::session::{Identity, News, Session};
use super::standing::{self, Standing};
use super::trouble::Matter;
use super::{Context, register};
use crate::Error;
use doing::Done;
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

struct Driver {
    context: Arc<Context>,
    identity: Identity,
    state: State,
    source: Source,
    /// With several hubs, the chosen one's file.
    chosen: Option<Source>,
    bootstrap: Option<Bootstrap>,
    credentials: Credentials,
    /// The Secret does not hold them yet.
    unsaved: bool,
    rewritten: Option<tokio::time::Instant>,
    /// Where the certificate is there and they may not be.
    rights: Option<Rights>,
    session: Option<Session>,
    doing: Option<BoxFuture<'static, Done>>,
    news: mpsc::UnboundedSender<News>,
    /// The cluster has been joined, in this run or an earlier one.
    joined: bool,
}

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) -> Result<(), Error> {
    let options = &context.options;
    let spoke = &context.spoke.client;
    let (bootstrap_secret, hub_secret) = (watch::channel(None).0, watch::channel(None).0);
    let mut watches = tokio::task::JoinSet::new();
    let several = !options.bootstrap_kubeconfigs.is_empty();
    for (name, into) in [
        (&options.bootstrap_kubeconfig_secret, &bootstrap_secret),
        (&options.hub_kubeconfig_secret, &hub_secret),
    ] {
        let namespace = options.namespace.clone();
        watches.spawn(bootstrap::follow_secret(
            spoke.clone(),
            namespace,
            name.clone(),
            into.clone(),
        ));
    }
    let (mut bootstrap_secret, mut hub_secret) = (bootstrap_secret.subscribe(), hub_secret.subscribe());
    let credentials = register::earlier(spoke, &context.place).await?;
    let (cluster, agent) = credentials::identity(
        options.cluster_name.as_deref(),
        options.agent_id.as_deref(),
        &credentials,
    )?;
    // Before the hub hears of them: who is started again while it decides is the same agent, not another of that name.
    if let Some(names) = credentials::names_to_keep(&cluster, &agent, &credentials) {
        let place = &context.place;
        let not_kept = "the names of cluster and agent are not kept until there is a certificate";
        if let Err(error) = names.write_dir(&place.dir) {
            tracing::warn!(%error, "{not_kept} in files");
        }
        // A Pod that is started again may have lost its files.
        if let Err(error) = names.write_secret(spoke, &place.namespace, &place.secret).await {
            tracing::warn!(%error, "{not_kept} in the Secret");
        }
    }
    let mut source = Source::new(
        options.bootstrap_kubeconfig.clone().filter(|_| !several),
        &options.namespace,
        &options.bootstrap_kubeconfig_secret,
    );
    let joined = credentials.server().is_ok();
    let mut first = true;
    // What the Secret said before the start is not news; but without a file it is all there is.
    if !several
        && !joined
        && options
            .bootstrap_kubeconfig
            .as_deref()
            .is_none_or(|f| !f.exists())
    {
        let name = &options.bootstrap_kubeconfig_secret;
        // What can not be read may come by the watch.
        if let Ok(found) = bootstrap::read_secret(spoke, &options.namespace, name).await {
            source.secret_is(found, true);
            first = false;
        }
    }
    let (news, mut heard) = mpsc::unbounded_channel();
    let mut driver = Driver {
        identity: Identity { cluster, agent },
        state: State::Waiting,
        source,
        chosen: None,
        bootstrap: None,
        credentials,
        unsaved: false,
        rewritten: None,
        rights: None,
        session: None,
        doing: None,
        news,
        joined,
        context: context.clone(),
    };
    driver.go_on_with_earlier().await;
    if several {
        driver.event(Event::Lost).await?;
    } else {
        driver.look().await?;
    }
    let result = loop {
        let refused = driver.session.as_ref().map(Session::hub);
        let doing = driver.doing.as_mut();
        let outcome = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            done = async { match doing { Some(doing) => doing.await, None => std::future::pending().await } } => {
                driver.doing = None;
                driver.done(done).await
            }
            Some(news) = heard.recv() => driver.heard(news).await,
            Ok(()) = bootstrap_secret.changed() => {
                let found = bootstrap_secret.borrow_and_update().clone();
                match found {
                    Some(found) if !several => {
                        let before = std::mem::replace(&mut first, false);
                        driver.bootstrap_secret_is(found, before).await
                    }
                    _ => Ok(()),
                }
            }
            Ok(()) = hub_secret.changed() => {
                let found = hub_secret.borrow_and_update().clone();
                match found {
                    Some(found) => driver.hub_secret_is(found.unwrap_or_default()).await,
                    None => Ok(()),
                }
            }
            () = refusal(refused.as_ref()), if driver.state == State::Working => driver.event(Event::Refused).await,
        };
        if let Err(error) = outcome {
            break Err(error);
        }
    };
    if let Some(session) = driver.session.take() {
        session.end().await;
    }
    watches.shutdown().await;
    result
}

async fn refusal(hub: Option<&HubClient>) {
    match hub {
        Some(hub) => hub.refused().await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// The hub that credentials must be for.
    fn target(&self) -> Option<&Server> {
        self.bootstrap.as_ref().map(|b| &b.server)
    }

    fn check(&self, credentials: &Credentials) -> Result<Validity, String> {
        let Identity { cluster, agent } = &self.identity;
        credentials.check(self.target(), cluster, agent, self.context.clock.at_hub())
    }

    /// Whoever has worked for a hub goes on with what it knows of its works, even while its credentials are no good (law 5).
    async fn go_on_with_earlier(&mut self) {
        let credentials = &self.credentials;
        let identity = match credentials.identity() {
            Some(identity) => identity,
            None => self.identity.clone(),
        };
        if let Ok((_, validity)) = credentials.certificate()
            && let Ok(server) = credentials.server()
        {
            let holding = Holding {
                server,
                validity,
                problem: None,
            };
            if let Err(error) = self.work(identity, holding, &self.credentials.clone()).await {
                tracing::warn!(%error, "the earlier credentials are of no use");
            }
        }
    }

    /// Works with these credentials: in the running session when it is for the same hub and agent, in a new one otherwise.
    async fn work(
        &mut self,
        identity: Identity,
        holding: Holding,
        credentials: &Credentials,
    ) -> Result<(), Error> {
        let context = self.context.clone();
        let client = context.connect.agent(credentials, &context.place).await?;
        match &self.session {
            Some(session) if session.is_for(&identity, &holding.server.url) => {
                session.take_up(holding, client);
            }
            _ => {
                if let Some(old) = self.session.take() {
                    tracing::info!("leaving the earlier hub; what it had applied stays and is handed over");
                    old.end().await;
                }
                tracing::info!(cluster = identity.cluster, agent = identity.agent, hub = holding.server.url,
                    until = %holding.validity.not_after, "working for the hub");
                self.session = Some(Session::start(
                    context,
                    identity,
                    holding,
                    client,
                    self.rights.take(),
                    self.news.clone(),
                ));
            }
        }
        Ok(())
    }

    /// Compares credentials and bootstrap data.
    async fn look(&mut self) -> Result<(), Error> {
        let source = self.chosen.as_ref().unwrap_or(&self.source);
        match source.bootstrap() {
            Ok(found) => {
                self.bootstrap = found;
                self.context.trouble.over(Matter::Bootstrap);
            }
            Err(error) if !self.joined => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the bootstrap data are of no use; the agent goes on without them");
                self.context.trouble.is(Matter::Bootstrap, error.to_string());
                self.bootstrap = None;
            }
        }
        let good = match self.check(&self.credentials) {
            Ok(validity) => match self.credentials.server() {
                Ok(server) => {
                    let held = Holding {
                        server,
                        validity,
                        problem: None,
                    };
                    self.adopt(held).await
                }
                Err(_) => false,
            },
            Err(problem) => {
                if self.bootstrap.is_some() {
                    tracing::info!(
                        cluster = self.identity.cluster,
                        problem,
                        "the cluster must register"
                    );
                } else {
                    let problem = format!("there are no good credentials for a hub ({problem})");
                    if self.context.options.bootstrap_kubeconfig.is_some() && !self.joined {
                        let wanted = self.source.wanted();
                        return Err(Error::Option(format!(
                            "{problem}, and no bootstrap kubeconfig in {wanted}"
                        )));
                    }
                    tracing::warn!(
                        problem,
                        wanted = self.source.wanted(),
                        "waiting for a bootstrap kubeconfig"
                    );
                }
                false
            }
        };
        let detached = match self.bootstrap.clone() {
            Some(bootstrap) if good => {
                is_detached(&self.context.clone(), &bootstrap, &self.identity.clone()).await
            }
            _ => false,
        };
        self.step(if detached {
            Event::Detached
        } else {
            Event::Looked { good }
        });
        Ok(())
    }

    /// Makes sure that the good credentials are the ones in use.
    async fn adopt(&mut self, held: Holding) -> bool {
        self.joined = true;
        let running = self
            .session
            .as_ref()
            .is_some_and(|s| s.is_for(&self.identity, &held.server.url) && s.holds(&held));
        // Before anything is done with them: whoever sees the cluster come finds them.
        self.keep_files();
        if running {
            return true;
        }
        let credentials = self.credentials.clone();
        match self.work(self.identity.clone(), held, &credentials).await {
            Ok(()) => {
                self.save().await;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the credentials for the hub are of no use");
                false
            }
        }
    }

    /// Keeps the credentials where the next run, and others, find them.
    async fn save(&mut self) {
        self.keep_files();
        let place = &self.context.place;
        let written = self
            .credentials
            .write_secret(&self.context.spoke.client, &place.namespace, &place.secret)
            .await;
        self.unsaved = written.is_err();
        if let Err(error) = written {
            tracing::warn!(%error, "the credentials for the hub can not be kept in a Secret yet");
        }
    }

    fn keep_files(&self) {
        if let Err(error) = self.credentials.write_dir(&self.context.place.dir) {
            tracing::warn!(%error, "the credentials for the hub can not be kept in files");
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), Error> {
        match self.step(event) {
            Action::Look => self.look().await,
            _ => Ok(()),
        }
    }

    fn step(&mut self, event: Event) -> Action {
        let (next, action) = self.state.step(event, self.bootstrap.is_some());
        if next != self.state {
            tracing::debug!(from = ?self.state, to = ?next, ?event, "registration");
            if next == State::Working {
                self.context.trouble.over(Matter::Registration);
            }
        }
        self.state = next;
        match action {
            Action::Continue | Action::Look => {}
            Action::Rest => self.doing = None,
            Action::Choose(after) | Action::Probe(after) | Action::Register { after, .. } => {
                self.doing = Some(Box::pin(async move {
                    tokio::time::sleep(after.mul_f64(rand::random_range(1.0..1.25))).await;
                    Done::Waited(action)
                }));
            }
        }
        action
    }
}

/// Whether the hub no longer has this cluster, as far as the bootstrap credential can tell: good credentials are worth nothing
/// then, and only registering anew helps. The work goes on meanwhile. That another cluster has the name is told: nothing helps.
async fn is_detached(context: &Context, bootstrap: &Bootstrap, identity: &Identity) -> bool {
    let Ok(hub) = context.connect.bootstrap(bootstrap).await else {
        return false;
    };
    let cluster = &identity.cluster;
    match register::find(&hub, cluster).await {
        Some(None) => {
            tracing::info!(cluster, "the hub no longer has this cluster; it registers anew");
            true
        }
        Some(Some(found)) => {
            if let Standing::Taken(why) = standing::of(&found, identity, context.spoke.uid.as_deref()) {
                tracing::warn!(cluster, "{}", standing::words(&why));
            }
            false
        }
        None => false,
    }
}

/// Whether the hub has accepted this very cluster, but gives its rights to another agent: no right comes back by waiting.
async fn is_replaced(context: &Context, bootstrap: &Bootstrap, identity: &Identity) -> bool {
    let Ok(hub) = context.connect.bootstrap(bootstrap).await else {
        return false;
    };
    let found = register::find(&hub, &identity.cluster).await.flatten();
    found.is_some_and(|found| standing::is_replaced(&found, identity, context.spoke.uid.as_deref()))
}
