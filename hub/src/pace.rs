//! An upper bound for what the hub asks of its API server, where somebody wants one (`--kube-api-qps`, `--kube-api-burst`).

use std::{sync::Mutex, time::Duration};

use clap::Args;
use kube::{Client, client::Body};
use tokio::time::Instant;

/// OCM's defaults, where only the other of the two is given.
const QPS: f64 = 50.0;
const BURST: u32 = 100;
/// The Lease of the hub that leads is renewed whatever else there is to ask.
const LEASES: &str = "/apis/coordination.k8s.io/";

/// How much the hub may ask.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct PaceOptions {
    /// Requests to the API server a second, at most. Default: no bound, but for how many are under way at a time
    #[arg(long, value_name = "N", value_parser = rate)]
    pub kube_api_qps: Option<f64>,
    /// Requests at once before that bound holds; 100 where only the other is given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub kube_api_burst: Option<u32>,
}

fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no rate: write a number above 0, or leave the flag out for no bound");
    let rate: f64 = text.parse().map_err(|_| wrong())?;
    // Less than one an hour is a mistake, and more than this is no bound.
    (1.0 / 3600.0..=1e9)
        .contains(&rate)
        .then_some(rate)
        .ok_or_else(wrong)
}

impl PaceOptions {
    fn pace(&self) -> Option<Pace> {
        if self.kube_api_qps.is_none() && self.kube_api_burst.is_none() {
            return None;
        }
        let between = Duration::from_secs_f64(1.0 / self.kube_api_qps.unwrap_or(QPS));
        Some(Pace::new(between, self.kube_api_burst.unwrap_or(BURST)))
    }

    /// The client, which waits where it must.
    pub fn keep(&self, client: Client) -> Client {
        let Some(pace) = self.pace() else {
            return client;
        };
        let (pace, namespace) = (std::sync::Arc::new(pace), client.default_namespace().to_owned());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (pace, client) = (pace.clone(), client.clone());
            async move {
                if !request.uri().path().starts_with(LEASES) {
                    tokio::time::sleep(pace.wait(Instant::now())).await;
                }
                client.send(request).await
            }
        });
        Client::new(service, namespace)
    }
}

/// When requests may go: so many at once, then one after the other.
struct Pace {
    between: Duration,
    /// How far requests may be ahead of their rate.
    ahead: Duration,
    /// When, at that rate, all that were let go are over.
    over: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(between: Duration, burst: u32) -> Self {
        Self {
            between,
            ahead: between.saturating_mul(burst),
            over: Mutex::default(),
        }
    }

    /// How long a request waits that comes now.
    fn wait(&self, now: Instant) -> Duration {
        let mut over = self
            .over
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = over.map_or(now, |over| over.max(now)) + self.between;
        *over = Some(next);
        next.saturating_duration_since(now).saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: PaceOptions,
    }

    fn parse(arguments: &[&str]) -> Result<PaceOptions, String> {
        Line::try_parse_from(std::iter::once(&"hub").chain(arguments))
            .map(|line| line.options)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn requests_go_at_once_and_then_one_after_the_other() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let pace = Pace::new(Duration::from_millis(100), 3);
        for (now, wanted) in [
            (0, 0),
            (0, 0),
            (0, 0),
            (0, 100),
            (0, 200),
            (150, 150),
            // All that waited has gone, and two more may go at once.
            (500, 0),
            (500, 0),
            (500, 100),
            // Idle time does not add up to more than the burst.
            (60_000, 0),
            (60_000, 0),
            (60_000, 0),
            (60_000, 100),
        ] {
            assert_eq!(pace.wait(at(now)).as_millis(), wanted, "at {now} ms");
        }
    }

    #[test]
    fn there_is_a_bound_where_one_is_given() {
        assert!(parse(&[]).unwrap().pace().is_none());
        for (arguments, between, ahead) in [
            (&["--kube-api-qps=20"][..], 50, 5000),
            (&["--kube-api-burst=10"], 20, 200),
            (&["--kube-api-qps=0.5", "--kube-api-burst=1"], 2000, 2000),
        ] {
            let pace = parse(arguments).unwrap().pace().unwrap();
            assert_eq!(
                (pace.between.as_millis(), pace.ahead.as_millis()),
                (between, ahead),
                "{arguments:?}"
            );
        }
        for wrong in [
            "--kube-api-qps=0",
            "--kube-api-qps=-1",
            "--kube-api-qps=NaN",
            "--kube-api-qps=x",
        ] {
            let error = parse(&[wrong]).unwrap_err();
            assert!(error.contains("leave the flag out"), "{error}");
        }
        assert!(parse(&["--kube-api-burst=0"]).is_err());
    }
}
