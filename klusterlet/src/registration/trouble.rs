//! What keeps a cluster from its hub, told where its own operator looks: as an Event beside the bootstrap Secret. The hub can
//! not tell of it, for it has never heard of the cluster, or hears nothing any more. OCM's operator says the same as a condition
//! of its Klusterlet, after which the reasons are named.
//!
//! Whoever meets with trouble notes it; one writer tells what is true last. So the Events never say that all is well after
//! something went wrong, and a server that is slow to take them keeps nobody waiting.

mod event;

use super::Context;
use crate::Error;
use crate::work::Backoff;
use crate::work::objects::RequestError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One Event is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be wrong, each with or without the others; in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// The bootstrap data make no sense.
    Bootstrap,
    /// The cluster must register, and can not.
    Registration,
    /// Its name is another's.
    Name,
    /// The hub does not let it in, or no longer.
    Acceptance,
    /// The hub takes no renewal of its lease.
    Lease,
    /// The hub does not take its status.
    Status,
}

impl Matter {
    /// Whether it is one of the hub that is worked for, and ends with that.
    fn is_of_a_session(self) -> bool {
        self >= Self::Name
    }
}

/// How the cluster stands with its hub, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Somebody has to mend something, or the hub is away: what it is.
    Degraded(String),
    /// All is well again.
    Functional,
}

#[derive(Debug, Clone, Default)]
struct Known {
    wrong: BTreeMap<Matter, String>,
    /// The hub took a renewal: before that it is not known whether all is well.
    works: bool,
    /// How often something was found to be wrong.
    times: u64,
}

impl Known {
    fn connection(&self) -> Option<Connection> {
        if self.wrong.is_empty() {
            return self.works.then_some(Connection::Functional);
        }
        let all: Vec<&str> = self.wrong.values().map(String::as_str).collect();
        Some(Connection::Degraded(all.join("; ")))
    }
}

/// What is known to be wrong now.
#[derive(Debug, Default)]
pub struct Trouble(watch::Sender<Known>);

impl Trouble {
    /// This is wrong, once more or still.
    pub fn is(&self, matter: Matter, problem: String) {
        self.0.send_modify(|known| {
            known.wrong.insert(matter, problem);
            known.times += 1;
        });
    }

    /// This is not wrong.
    pub fn over(&self, matter: Matter) {
        self.0
            .send_if_modified(|known| known.wrong.remove(&matter).is_some());
    }

    /// The hub took a renewal of the lease.
    pub fn works(&self) {
        self.0.send_if_modified(|known| {
            let before = std::mem::replace(&mut known.works, true);
            known.wrong.remove(&Matter::Lease).is_some() || !before
        });
    }

    /// Another hub is worked for, of which nothing is known yet.
    pub fn anew(&self) {
        self.0.send_if_modified(|known| {
            known.wrong.retain(|matter, _| !matter.is_of_a_session());
            known.works = false;
            false
        });
    }
}

/// Something that fails every time: one failure is no news, and that it goes on is told now and then.
#[derive(Debug, Default)]
pub struct Lasting {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Lasting {
    /// It succeeded, or is not tried any more; whether it had been told.
    pub fn over(&mut self) -> bool {
        std::mem::take(self).told.is_some()
    }

    /// It failed, and is told once it did for so long, and as often: for how long now, and whether for the first time.
    pub fn failed(&mut self, now: Instant, patience: Duration) -> Option<(Duration, bool)> {
        let since = *self.since.get_or_insert(now);
        if now < self.told.unwrap_or(since) + patience {
            return None;
        }
        let first = self.told.replace(now).is_none();
        Some((now - since, first))
    }
}

/// Runs what may meet with trouble, and writes what it does beside it; the error that ends it is the last thing written.
pub async fn told(context: &Arc<Context>, run: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let ended = CancellationToken::new();
    let running = async {
        let result = run.await;
        if let Err(error) = &result {
            context.trouble.is(Matter::Registration, error.to_string());
        }
        ended.cancel();
        result
    };
    let write = |connection, times| async move {
        match tokio::time::timeout(PATIENCE, event::write(context, &connection, times)).await {
            Ok(written) => written,
            Err(_) => Err(RequestError::Timeout),
        }
    };
    let writing = keep(context.trouble.0.subscribe(), &ended, write);
    tokio::join!(running, writing).0
}

/// Writes what is so, and again whenever it changes, one after the other, until the end. What nobody answered is written again.
async fn keep<W: Future<Output = Result<(), RequestError>>>(
    mut known: watch::Receiver<Known>,
    ended: &CancellationToken,
    write: impl Fn(Connection, u64) -> W,
) {
    let mut backoff = Backoff::default();
    let mut counted = 0;
    let mut written = None;
    loop {
        tokio::select! {
            biased;
            changed = known.changed() => if changed.is_err() { return },
            () = ended.cancelled() => return,
        }
        let (connection, times) = {
            let known = known.borrow_and_update();
            (known.connection(), known.times)
        };
        // What was over before it could be told is counted with what is told next.
        let degraded = connection != Some(Connection::Functional);
        let again = if degraded { times - counted } else { 0 };
        let is_news = |now: &Connection| written.as_ref() != Some(now) || again > 0;
        let Some(connection) = connection.filter(is_news) else {
            continue;
        };
        match write(connection.clone(), again).await {
            Ok(()) => {
                backoff = Backoff::default();
                counted += again;
                written = Some(connection);
            }
            Err(error) => {
                tracing::debug!(%error, "the Event was not written");
                // Who says no will not say otherwise.
                if !matches!(error.code(), 400..=404 | 422) {
                    tokio::select! {
                        () = ended.cancelled() => {}
                        () = backoff.wait() => known.mark_changed(),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn degraded(problem: &str) -> Connection {
        Connection::Degraded(problem.into())
    }

    #[test]
    fn all_is_well_when_nothing_is_wrong_and_the_hub_took_a_renewal() {
        let trouble = Trouble::default();
        let told = || trouble.0.borrow().connection();
        assert_eq!(told(), None);
        trouble.is(Matter::Lease, "lease".into());
        trouble.is(Matter::Registration, "refused".into());
        assert_eq!(told(), Some(degraded("refused; lease")));
        trouble.over(Matter::Registration);
        assert_eq!(told(), Some(degraded("lease")));
        trouble.works();
        assert_eq!(told(), Some(Connection::Functional));
        trouble.is(Matter::Status, "status".into());
        trouble.is(Matter::Bootstrap, "spoiled".into());
        trouble.anew();
        assert_eq!(told(), Some(degraded("spoiled")));
        trouble.over(Matter::Bootstrap);
        assert_eq!(told(), None, "of the other hub nothing is known");
    }

    #[test]
    fn what_goes_on_is_told_now_and_then() {
        let begin = Instant::now();
        let mut lasting = Lasting::default();
        let patience = Duration::from_secs(120);
        for (second, wanted) in [
            (0, None),
            (119, None),
            (120, Some((120, true))),
            (180, None),
            (300, Some((300, false))),
        ] {
            let now = begin + Duration::from_secs(second);
            let told = lasting
                .failed(now, patience)
                .map(|(for_, first)| (for_.as_secs(), first));
            assert_eq!(told, wanted, "after {second} s");
        }
        assert!(lasting.over() && !lasting.over());
        let late = begin + Duration::from_secs(9999);
        assert_eq!(lasting.failed(late, patience), None, "it counts anew");
    }

    /// A server that takes its time, and sometimes does not answer.
    #[derive(Default)]
    struct Slow {
        taken: Mutex<Vec<(Connection, u64)>>,
        asked: AtomicU64,
        silent: bool,
    }

    impl Slow {
        async fn write(&self, connection: Connection, times: u64) -> Result<(), RequestError> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            // Sooner and sooner: who came later would be there first.
            tokio::time::sleep(Duration::from_millis(90 / (asked + 1))).await;
            if self.silent && asked.is_multiple_of(2) {
                return Err(RequestError::Timeout);
            }
            self.taken.lock().unwrap().push((connection, times));
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_true_last_is_told_last_and_every_failure_is_counted() {
        for silent in [false, true] {
            let (trouble, ended) = (Trouble::default(), CancellationToken::new());
            let slow = Slow {
                silent,
                ..Slow::default()
            };
            let write = |connection, times| slow.write(connection, times);
            let writing = keep(trouble.0.subscribe(), &ended, write);
            let running = async {
                trouble.works();
                for round in 0..50_u64 {
                    trouble.is(Matter::Registration, format!("failure {round}"));
                    tokio::time::sleep(Duration::from_millis(round % 7)).await;
                    trouble.over(Matter::Registration);
                    tokio::time::sleep(Duration::from_millis(round % 3 * 20)).await;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
                let taken = slow.taken.lock().unwrap().clone();
                assert_eq!(taken.last().unwrap().0, Connection::Functional, "{taken:?}");
                for _ in 0..7 {
                    trouble.is(Matter::Registration, "seven times".into());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
                let taken = slow.taken.lock().unwrap().clone();
                assert_eq!(taken.last().unwrap().0, degraded("seven times"));
                let counted: u64 = taken.iter().map(|(_, times)| times).sum();
                assert_eq!(counted, 57, "{taken:?}");
                trouble.is(Matter::Registration, "it ends for this".into());
                ended.cancel();
            };
            tokio::join!(writing, running);
            let taken = slow.taken.into_inner().unwrap();
            let numbers: Vec<u64> = taken
                .iter()
                .filter_map(|(connection, _)| match connection {
                    Connection::Degraded(problem) => problem.strip_prefix("failure ")?.parse().ok(),
                    Connection::Functional => None,
                })
                .collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
            assert!(silent || numbers.len() > 5, "{numbers:?}");
            let ended = taken.last().unwrap().0 == degraded("it ends for this");
            // Without an answer it is not waited for.
            assert!(silent || ended, "{taken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_no_is_not_asked_over_and_over() {
        let (trouble, ended) = (Trouble::default(), CancellationToken::new());
        let asked = AtomicU64::new(0);
        let writing = keep(trouble.0.subscribe(), &ended, |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            let status = kube::core::Status::failure("no", "Forbidden").with_code(403);
            let error = kube::Error::Api(status.boxed());
            std::future::ready(Err(RequestError::Kube(Box::new(error))))
        });
        let running = async {
            trouble.is(Matter::Registration, "refused".into());
            tokio::time::sleep(Duration::from_secs(3600)).await;
            ended.cancel();
        };
        tokio::join!(writing, running);
        assert_eq!(asked.into_inner(), 1);
    }
}
