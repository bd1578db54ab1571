//! Reports the cluster's status to the hub: whenever what it tells of changed, and looks once a period.

use super::session::{Shared, is_accepted};
use super::status::{self, Health, Observed};
use super::trouble::{Lasting, Matter};
use super::{events, lease, register};
use crate::work::Backoff;
use crate::work::objects::{self, RequestError};
use muster_crds::cluster::v1::ManagedCluster;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Failing health checks are tolerated this long (wire §2.7).
const HEALTH_TOLERANCE: Duration = Duration::from_secs(20);
const HEALTH_RETRY: Duration = Duration::from_secs(5);

impl Shared {
    /// Writes the status whenever what it tells of changed, and looks once a period.
    pub async fn keep_status(self: Arc<Self>) {
        let mut cluster = self.cluster.subscribe();
        let mut heard = self.heard.subscribe();
        let mut sick_since: Option<Instant> = None;
        let mut version: Option<String> = None;
        let mut health = Health::Ok;
        let mut look_at = Instant::now();
        let mut backoff = Backoff::default();
        let mut failing = Lasting::default();
        loop {
            let now = cluster.borrow_and_update().clone();
            let silent = !lease::may_tell(*self.missed.borrow(), *heard.borrow_and_update());
            let accepted = now.as_ref().is_some_and(|c| is_accepted(c));
            if !accepted {
                self.status_is_taken(&mut failing);
            }
            if !silent && accepted {
                if Instant::now() >= look_at {
                    let (found, git_version) = self.look().await;
                    sick_since = match found {
                        Health::Ok => None,
                        Health::Bad(..) => sick_since.or(Some(Instant::now())),
                    };
                    let tolerated = sick_since.is_some_and(|s| s.elapsed() < HEALTH_TOLERANCE);
                    look_at = Instant::now()
                        + if tolerated {
                            HEALTH_RETRY
                        } else {
                            self.context.options.cluster_healthcheck_period
                        };
                    if !tolerated {
                        health = found;
                    }
                    version = git_version.or(version);
                }
                match self.write_status(&health, version.as_ref()).await {
                    Ok(()) => {
                        backoff = Backoff::default();
                        self.status_is_taken(&mut failing);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the ManagedCluster's status was not written, it is tried again");
                        self.status_is_refused(&mut failing, &error, lease::period(now.as_deref()));
                        backoff.wait().await;
                        continue;
                    }
                }
            }
            let idle = silent || self.current().is_none_or(|c| !is_accepted(&c));
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                changed = heard.changed(), if silent => if changed.is_err() { return },
                () = self.facts.changed() => {}
                () = self.refresh.notified() => {}
                () = tokio::time::sleep_until(look_at), if !idle => {}
            }
        }
    }

    fn status_is_taken(&self, failing: &mut Lasting) {
        if failing.over() {
            tracing::info!("the hub takes this cluster's status again");
        }
        self.context.trouble.over(Matter::Status);
    }

    /// Refused once it is tried again. Refused for as long as renewals of the lease may be, somebody has to look.
    fn status_is_refused(&self, failing: &mut Lasting, error: &RequestError, period: Duration) {
        let Some((lasted, first)) = failing.failed(Instant::now(), lease::PATIENCE_IN_PERIODS * period)
        else {
            return;
        };
        let problem = format!(
            "the hub {} has not taken the status of cluster {} for {} s: {}",
            self.url,
            self.identity.cluster,
            lasted.as_secs(),
            register::said(error)
        );
        if first {
            tracing::warn!("{problem}");
        }
        self.context.trouble.is(Matter::Status, problem);
    }

    async fn look(&self) -> (Health, Option<String>) {
        let probe = |path: &'static str| async move {
            let request = http::Request::get(path)
                .body(Vec::new())
                .map_err(RequestError::Build)?;
            match tokio::time::timeout(
                Duration::from_secs(10),
                self.context.spoke.client.request_text(request),
            )
            .await
            {
                Ok(answer) => answer.map_err(|e| RequestError::Kube(Box::new(e))),
                Err(_) => Err(RequestError::Timeout),
            }
        };
        let mut found = probe("/livez").await;
        if matches!(&found, Err(e) if matches!(e.code(), 403 | 404)) {
            found = probe("/healthz").await;
        }
        let health = match found {
            Ok(_) => Health::Ok,
            Err(error) => Health::Bad(error.code(), error.to_string()),
        };
        let version = self
            .context
            .spoke
            .client
            .apiserver_version()
            .await
            .ok()
            .map(|v| v.git_version);
        (health, version)
    }

    async fn write_status(&self, health: &Health, version: Option<&String>) -> Result<(), RequestError> {
        let Some(cluster) = self.current() else {
            return Ok(());
        };
        let old = cluster.status.clone().unwrap_or_default();
        let held = self.holding.borrow().clone();
        let options = &self.context.options;
        let claims = self.facts.claims(
            self.context.gates,
            &options.reserved_cluster_claim_suffixes,
            options.max_custom_cluster_claims,
        );
        let observed = Observed {
            health: health.clone(),
            version: version.cloned(),
            resources: self.facts.resources(),
            claims,
            certificate: Some(held.validity),
            rotation_problem: held.problem,
            namespaces: self.namespaces.outcomes(),
            kept: self.kept.borrow().clone(),
        };
        let new = status::status(&old, &observed, self.context.clock.at_hub());
        if new == old {
            return Ok(());
        }
        // The hub writes conditions into the same list: the revision keeps either from undoing the other.
        let patch = json!({"metadata": {"uid": cluster.metadata.uid,
            "resourceVersion": cluster.metadata.resource_version}, "status": status::patch(&old, &new)});
        let name = &self.identity.cluster;
        let path = format!("/apis/cluster.open-cluster-management.io/v1/managedclusters/{name}/status");
        match objects::merge(&self.hub, &path, &patch).await {
            Ok(answer) => {
                if let Ok(written) = serde_json::from_value::<ManagedCluster>(answer) {
                    self.cluster.send_if_modified(|known| {
                        let same = known.as_ref().is_some_and(|k| {
                            k.metadata.resource_version == cluster.metadata.resource_version
                        });
                        if same {
                            *known = Some(Arc::new(written));
                        }
                        false
                    });
                }
                if let Some(available) = events::transition(&old, &new) {
                    let now = self.context.clock.at_hub();
                    let event = events::event(&cluster, &self.identity.agent, available, now);
                    events::send(&self.hub, &event).await;
                }
                Ok(())
            }
            // Somebody wrote in between: the watch brings it, and with it the next try.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
