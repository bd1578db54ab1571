//! Certificate rotation (wire §2.3): a new certificate while 20 to 25 % of the old one's life is left, put to use in place.

use super::credentials::{Credentials, Validity};
use super::csr::{Counted, CsrError};
use super::kubeconfig::Server;
use super::machine::{self, Failure};
use super::register;
use super::session::{Identity, News, Shared};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// A machine that slept must not oversleep its certificate: the clock is read again after this.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// The credentials in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// The hub they are for.
    pub server: Server,
    /// When their certificate is good.
    pub validity: Validity,
    /// Why the certificate could not be renewed, when it could not.
    pub problem: Option<String>,
}

/// What to do about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing for so long.
    In(Duration),
    /// Renew it.
    Now,
    /// It is of no use any more.
    Expired,
}

/// Decides by the share of its life that may be left, 0 to 1.
pub fn due(validity: Validity, share: f64, now: Timestamp) -> Due {
    let life = validity
        .not_after
        .duration_since(validity.not_before)
        .as_secs_f64();
    let left = Duration::try_from_secs_f64((life * share).max(0.0)).unwrap_or_default();
    let at = validity.not_after.checked_sub(left).unwrap_or(validity.not_after);
    if now >= validity.not_after {
        Due::Expired
    } else if now >= at {
        Due::Now
    } else {
        Due::In(Duration::try_from(at.duration_since(now)).unwrap_or_default())
    }
}

/// Renews for ever; each agent at another moment.
pub async fn rotate(shared: Arc<Shared>) {
    let mut holding = shared.holding.subscribe();
    let share = rand::random_range(0.20..0.25);
    let mut failures = 0;
    loop {
        let held = holding.borrow_and_update().clone();
        let now = shared.context.clock.at_hub();
        let rest = match due(held.validity, share, now) {
            Due::In(wait) => {
                failures = 0;
                wait.min(LONGEST_SLEEP)
            }
            Due::Expired => {
                tracing::warn!("the certificate for the hub expired; the cluster registers anew");
                shared.tell(News::Expired);
                if holding.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Due::Now => {
                let left =
                    Duration::try_from(held.validity.not_after.duration_since(now)).unwrap_or_default();
                let (failure, problem) = match tokio::time::timeout(left, renew(&shared, &held.server)).await
                {
                    Ok(Ok(new)) => {
                        tracing::info!(until = %new.validity.not_after, "the certificate for the hub was renewed");
                        shared.holding.send_replace(new);
                        shared.refresh.notify_one();
                        continue;
                    }
                    Ok(Err((failure, problem))) => (failure, problem),
                    Err(_) => (Failure::Other, "no certificate was issued in time".to_owned()),
                };
                let wait = machine::wait(failure, failures).mul_f64(rand::random_range(1.0..1.25));
                failures += 1;
                tracing::warn!(problem, again_in = ?wait, "the certificate for the hub could not be renewed");
                shared.holding.send_if_modified(|held| {
                    held.problem = Some(problem);
                    false
                });
                shared.refresh.notify_one();
                wait.min(left)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            changed = holding.changed() => if changed.is_err() { return },
        }
    }
}

async fn renew(shared: &Shared, server: &Server) -> Result<Holding, (Failure, String)> {
    let other = |problem: String| (Failure::Other, problem);
    let Identity { cluster, agent } = &shared.identity;
    let context = &shared.context;
    let (certificate, key) = register::certificate(context, &shared.hub, &shared.identity, Counted::Renewals)
        .await
        .map_err(|error| {
            let failure = match &error {
                CsrError::Denied { .. } => Failure::Denied,
                CsrError::TooMany(_) => Failure::TooMany,
                CsrError::Request(e) if matches!(e.code(), 401 | 403) => Failure::Refused,
                _ => Failure::Other,
            };
            (failure, error.to_string())
        })?;
    let credentials = Credentials::new(server, cluster, agent, &certificate, key.as_bytes());
    let validity = credentials
        .check(Some(server), cluster, agent, context.clock.at_hub())
        .map_err(other)?;
    let client = context
        .connect
        .agent(&credentials, &context.place)
        .await
        .map_err(|e| other(e.to_string()))?;
    shared.exchange.exchange(client);
    shared.tell(News::Renewed(Box::new(credentials)));
    Ok(Holding {
        server: server.clone(),
        validity,
        problem: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_in_the_last_quarter() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let validity = Validity {
            not_before: at(0),
            not_after: at(1000),
        };
        let seconds = |s| Due::In(Duration::from_secs(s));
        for (share, now, expected) in [
            (0.2, 0, seconds(800)),
            (0.25, 700, seconds(50)),
            (0.2, 800, Due::Now),
            (0.2, 999, Due::Now),
            (0.2, 1000, Due::Expired),
            (0.2, 5000, Due::Expired),
        ] {
            assert_eq!(due(validity, share, at(now)), expected, "{share} {now}");
        }
    }
}
