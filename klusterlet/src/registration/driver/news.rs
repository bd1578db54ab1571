//! What comes from outside: of the session, and of Secrets and files that others write.

use super::super::bootstrap::Data;
use super::super::credentials::Credentials;
use super::super::machine::{Event, State};
use super::super::register;
use super::super::session::News;
use super::Driver;
use crate::Error;
use std::time::Duration;

/// The hub Secret is not written again sooner than this: two agents that share one must not fight in a loop.
const REWRITE: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) async fn heard(&mut self, news: News) -> Result<(), Error> {
        match news {
            News::Expired => self.event(Event::Expired).await,
            News::Lost(why) => {
                if matches!(self.state, State::Working | State::Doubting { .. }) {
                    tracing::warn!(why, "looking for another hub");
                    return self.event(Event::Lost).await;
                }
                Ok(())
            }
            News::Renewed(credentials) => {
                self.credentials = *credentials;
                self.save().await;
                Ok(())
            }
            News::Heard => self.event(Event::Heard).await,
            News::Shut => match self.bootstrap.clone() {
                Some(bootstrap)
                    if self.state == State::Working
                        && super::is_replaced(&self.context.clone(), &bootstrap, &self.identity.clone())
                            .await =>
                {
                    tracing::warn!(
                        cluster = self.identity.cluster,
                        "the hub gives this cluster's rights to another agent of it; this one registers anew"
                    );
                    self.event(Event::Looked { good: false }).await
                }
                _ => Ok(()),
            },
            News::Pulse => {
                if self.unsaved {
                    self.save().await;
                }
                if self.file_changed() {
                    self.bootstrap_changed().await
                } else {
                    Ok(())
                }
            }
        }
    }

    pub(super) fn file_changed(&mut self) -> bool {
        self.chosen.as_mut().unwrap_or(&mut self.source).file_changed()
    }

    pub(super) async fn bootstrap_secret_is(
        &mut self,
        found: Option<Data>,
        first: bool,
    ) -> Result<(), Error> {
        match (self.source.secret_is(found, first), first) {
            (false, _) => Ok(()),
            // As it was when the agent started: nobody asked for anything.
            (true, true) => self.look().await,
            (true, false) => self.bootstrap_changed().await,
        }
    }

    /// Bootstrap data changed. Somebody who gives a joined cluster new ones may want it to join anew: the ManagedCluster is made
    /// again if the hub deleted it.
    async fn bootstrap_changed(&mut self) -> Result<(), Error> {
        tracing::info!("the bootstrap data changed");
        self.look().await?;
        if let (State::Working, Some(bootstrap)) = (self.state, self.bootstrap.clone()) {
            let (context, identity) = (self.context.clone(), self.identity.clone());
            tokio::spawn(async move {
                let answer = match context.connect.bootstrap(&bootstrap).await {
                    Ok(hub) => register::ensure_cluster(&context, &hub, &bootstrap, &identity).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = answer {
                    tracing::warn!(%error, "the new bootstrap data are of no use yet");
                }
            });
        }
        Ok(())
    }

    /// The hub Secret is so now: our own doing, or somebody else's.
    pub(super) async fn hub_secret_is(&mut self, found: Data) -> Result<(), Error> {
        let found = Credentials::from(found);
        if found == self.credentials || (self.joined && self.credentials.same_as(&found)) {
            return Ok(());
        }
        let ours = self.check(&self.credentials);
        if self.check(&found).is_ok() {
            // Written by us and since renewed, or by somebody with good reason. The newer counts.
            let older = ours.is_ok() && found.not_after() < self.credentials.not_after();
            if !older {
                tracing::info!("the Secret with the hub's credentials changed: they are taken up");
                self.credentials = found;
                return self.look().await;
            }
        }
        if ours.is_ok() {
            if self.rewritten.is_some_and(|at| at.elapsed() < REWRITE) {
                // The next pulse writes it.
                self.unsaved = true;
                return Ok(());
            }
            self.rewritten = Some(tokio::time::Instant::now());
            tracing::warn!(
                "the Secret with the hub's credentials was deleted or spoiled: it is written again"
            );
            self.save().await;
        }
        Ok(())
    }
}
