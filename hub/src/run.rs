//! The hub as one future, for its own process and for others'.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Client;
use muster_crds::validity::Validity;
use muster_observe::Observed;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{self, Webhook},
    error::Error,
    install,
    leader::Election,
    metrics::Metrics,
    options::HubOptions,
    registration, work,
    writer::Writer,
};

/// A machine that slept must not oversleep what runs out: the clock is read again after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Runs the hub until `shutdown`; then ends what is under way and returns. Where several run, one has the controllers.
/// An API server that goes away is waited for. Errors say what a person has to change first.
pub async fn run(client: Client, options: HubOptions, shutdown: CancellationToken) -> Result<(), Error> {
    let candidate = options.candidate()?;
    let client = options.pace.keep(client);
    let metrics = Arc::<Metrics>::default();
    metrics.own(options.certificates.clone());
    // However this ends, the tasks end with it.
    let stop = shutdown.child_token();
    let _guard = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    // Twice as many writes as clusters at a time: some of a cluster's go at once.
    let writer = Arc::new(Writer::new(
        client,
        usize::from(options.workers) * 2,
        metrics.clone(),
    ));
    let listens = Box::pin(admission::listen(&writer, &options, &stop, &mut tasks));
    let Some(webhook) = shutdown.run_until_cancelled(listens).await else {
        return Ok(());
    };
    let webhook = webhook?;
    tell(&options, &metrics, webhook.as_ref(), &stop, &mut tasks).await?;
    tasks.spawn(warn(options.certificates.clone(), stop));
    let ended = match candidate {
        None => control(&writer, &options, webhook.as_ref(), &shutdown).await,
        Some(candidate) => {
            let election = Arc::new(Election::new(candidate, writer.clone()));
            elected(election, &writer, &options, webhook.as_ref(), &shutdown).await
        }
    };
    if let Some(webhook) = webhook {
        webhook.end().await;
    }
    ended
}

/// Installs what is needed and runs the controllers.
async fn control(
    writer: &Arc<Writer>,
    options: &HubOptions,
    webhook: Option<&Webhook>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let stop = shutdown.child_token();
    let _guard = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    let begin = Box::pin(begin(writer, options, webhook, &stop, &mut tasks));
    let Some(begun) = shutdown.run_until_cancelled(begin).await else {
        return Ok(());
    };
    begun?;
    options.begun.cancel();
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() || !shutdown.is_cancelled() {
            return Err(Error::Ended("controllers"));
        }
    }
    Ok(())
}

/// Installs what is needed, then starts what goes on. Admission comes before anybody may come.
async fn begin(
    writer: &Arc<Writer>,
    options: &HubOptions,
    webhook: Option<&Webhook>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let mut policies = false;
    if options.install_crds {
        policies = install::definitions(writer, &options.gates(), &options.namespace).await?;
    }
    let stamped = admission::lead(webhook, writer, policies, stop, tasks).await?;
    if options.install_crds {
        install::bootstrap(writer).await?;
    }
    registration::start(writer, options, stamped, stop, tasks);
    work::start(writer, options, stop, tasks);
    Ok(())
}

/// Runs the controllers while this hub leads.
async fn elected(
    election: Arc<Election>,
    writer: &Arc<Writer>,
    options: &HubOptions,
    webhook: Option<&Webhook>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let metrics = writer.metrics();
    let mut leads = election.leads();
    // The Lease is let go of when the controllers have ended.
    let end = CancellationToken::new();
    let _guard = end.clone().drop_guard();
    let stop = end.clone();
    let mut part = tokio::spawn(async move { election.run(stop).await });
    let ended = loop {
        metrics.leads(false);
        tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            _ = &mut part => break Err(Error::Ended("election")),
            // It fails only when the election has ended, which the line above tells of.
            Ok(_) = leads.wait_for(|leads| *leads) => {}
        }
        metrics.leads(true);
        tokio::select! {
            ended = control(writer, options, webhook, shutdown) => break ended,
            // What is under way ends with it, at once.
            Ok(_) = leads.wait_for(|leads| !*leads) => metrics.forget(),
            _ = &mut part => break Err(Error::Ended("election")),
        }
    };
    end.cancel();
    if !part.is_finished() {
        // However it ended, this hub does nothing any more.
        let _ = part.await;
    }
    ended
}

/// Serves metrics and health checks, where that is asked for.
async fn tell(
    options: &HubOptions,
    metrics: &Arc<Metrics>,
    webhook: Option<&Webhook>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let Some(address) = options.listen else {
        return Ok(());
    };
    let listener = muster_observe::bind(address).await.map_err(Error::Listen)?;
    let address = listener.local_addr().unwrap_or(address);
    let mut observed = Observed::default();
    metrics.register(observed.registry());
    let known = metrics.clone();
    observed.ready("controllers", move || {
        if known.is_ready() || known.waits() {
            Ok(())
        } else {
            Err("not everything the API server holds is known yet".to_owned())
        }
    });
    if let Some(webhook) = webhook {
        observed.ready("admission webhook", webhook.readiness());
    }
    tracing::info!(%address, "metrics and health checks are served");
    tasks.spawn(muster_observe::serve(listener, Arc::new(observed), stop.clone()));
    Ok(())
}

/// Tells of the hub's own certificates when they should be renewed: a person has to.
async fn warn(certificates: BTreeMap<&'static str, Validity>, stop: CancellationToken) {
    let mut told: Vec<&'static str> = Vec::new();
    while told.len() < certificates.len() {
        let now = Timestamp::now();
        for (certificate, validity) in &certificates {
            if validity.is_overdue(now) && !told.contains(certificate) {
                told.push(certificate);
                tracing::warn!(certificate, end = %validity.not_after, "a certificate of the hub ends soon: renew it");
            }
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(LONGEST_SLEEP))
            .await
            .is_none()
        {
            return;
        }
    }
}
