//! What is done for an action of `machine`, beside everything else, and what it comes to.

use super::super::bootstrap::Source;
use super::super::hub_client::HubClient;
use super::super::hubs;
use super::super::machine::{Action, Event, Failure, Probe, State};
use super::super::register::{self, Registered};
use super::super::rotation::Holding;
use super::super::trouble::Matter;
use super::Driver;
use crate::Error;
use futures::future::BoxFuture;
use std::time::Duration;

/// With several hubs, one that was tried so often again without success is left for another.
const TRIES: u32 = 1;

/// What an action came to.
pub(super) enum Done {
    /// The wait before it is over.
    Waited(Action),
    /// The hub to work for, or what is wrong with each.
    Chosen(Result<usize, String>),
    Probed(Probe),
    Registered(Box<Registered>),
    Failed(Error),
}

impl Driver {
    /// The wait before an action is over: begins it, with the bootstrap data of now.
    pub(super) async fn begin(&mut self, action: Action) -> Result<(), Error> {
        if self.file_changed() {
            return self.look().await;
        }
        let context = self.context.clone();
        let identity = self.identity.clone();
        let hub = self.session.as_ref().map(|s| s.hub().client());
        let doing: BoxFuture<'static, Done> = match action {
            Action::Continue | Action::Rest | Action::Look => return Ok(()),
            Action::Choose(_) => {
                let present = self.credentials.server().ok().map(|s| s.url);
                Box::pin(async move {
                    let files = &context.options.bootstrap_kubeconfigs;
                    let asked = hubs::ask(&context, files, &identity.cluster).await;
                    Done::Chosen(
                        hubs::choose(&asked, present.as_deref()).ok_or_else(|| hubs::problems(&asked)),
                    )
                })
            }
            Action::Probe(_) => match hub {
                Some(hub) => {
                    Box::pin(async move { Done::Probed(register::probe(&hub, &identity.cluster).await) })
                }
                None => Box::pin(std::future::ready(Done::Probed(Probe::Unreachable))),
            },
            Action::Register { probe, .. } => {
                let Some(bootstrap) = self.bootstrap.clone() else {
                    return self.look().await;
                };
                let old = hub.filter(|_| probe);
                let limit = Duration::from_secs(context.options.hub_connection_timeout_seconds);
                let limit = self.chosen.is_some().then_some(limit);
                Box::pin(async move {
                    if let Some(old) = old
                        && register::probe(&old, &identity.cluster).await == Probe::Known
                    {
                        return Done::Probed(Probe::Known);
                    }
                    let url = &bootstrap.server.url;
                    tracing::info!(cluster = identity.cluster, hub = url, "registering at the hub");
                    let hub = match context.connect.bootstrap(&bootstrap).await {
                        Ok(hub) => HubClient::new(hub, context.clock.clone()).client(),
                        Err(error) => return Done::Failed(error),
                    };
                    let registering = register::register(&context, &hub, &bootstrap, &identity);
                    // A person may take days to decide; but where there are other hubs they are not kept waiting.
                    let answer = match limit {
                        None => registering.await,
                        Some(limit) => tokio::time::timeout(limit, registering)
                            .await
                            .unwrap_or_else(|_| {
                                Err(Error::Hub {
                                    server: url.clone(),
                                    problem: format!(
                                        "no certificate was issued within {} s",
                                        limit.as_secs()
                                    ),
                                })
                            }),
                    };
                    match answer {
                        Ok(made) => Done::Registered(Box::new(made)),
                        Err(error) => Done::Failed(error),
                    }
                })
            }
        };
        self.doing = Some(doing);
        Ok(())
    }

    pub(super) async fn done(&mut self, done: Done) -> Result<(), Error> {
        match done {
            Done::Waited(action) => self.begin(action).await,
            Done::Probed(probe) => self.event(Event::Probed(probe)).await,
            Done::Chosen(Err(problems)) => {
                tracing::warn!("none of the hubs takes this cluster now; what is applied stays");
                let message = format!("none of the hubs takes this cluster now: {problems}");
                self.context.trouble.is(Matter::Registration, message);
                self.event(Event::Chosen(false)).await
            }
            Done::Chosen(Ok(index)) => {
                let file = self.context.options.bootstrap_kubeconfigs.get(index).cloned();
                self.chosen = Some(Source::new(file, &self.context.place.namespace, ""));
                self.event(Event::Chosen(true)).await
            }
            Done::Registered(made) => {
                let Registered {
                    credentials,
                    validity,
                    rights,
                } = *made;
                self.rights = rights;
                let held = credentials.server().map(|server| Holding {
                    server,
                    validity,
                    problem: None,
                });
                self.credentials = credentials;
                match held {
                    Ok(held) => {
                        let event = if self.adopt(held).await {
                            Event::Registered
                        } else {
                            Event::Failed(Failure::Other)
                        };
                        // A session that goes on does not need them.
                        self.rights = None;
                        self.event(event).await
                    }
                    Err(_) => self.event(Event::Failed(Failure::Other)).await,
                }
            }
            Done::Failed(error) if !self.joined && self.chosen.is_none() && error.ends_first_join() => {
                Err(error)
            }
            Done::Failed(error) => {
                let failure = error.failure();
                tracing::warn!(%error, "the cluster could not be registered, it is tried again");
                self.context.trouble.is(Matter::Registration, error.to_string());
                let tried = matches!(self.state, State::Registering { attempt: TRIES.., .. });
                let event = if self.chosen.is_some() && tried {
                    Event::Lost
                } else {
                    Event::Failed(failure)
                };
                self.event(event).await
            }
        }
    }
}
