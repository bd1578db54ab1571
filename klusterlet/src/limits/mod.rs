//! Requests to an API server, as many at a time as it bears, and each work's in turn.
//!
//! `window` says how many; here they wait, learn from the answers, and come again when the server only had too much to do.
//! What keeps the cluster registered (its lease, status and certificate) does not wait here: it is little, and comes first.

mod fair;
mod window;

use fair::Fair;
use kube::Client;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
pub use window::Answer;
use window::{May, Window};

/// A server that has too much to do is asked again for this long, before whoever asked is told so.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that has lasted so long makes room for others: a webhook that does not answer must not hold them up.
const LONG: Duration = Duration::from_secs(1);

/// An API server and the limits that all who ask it share.
#[derive(Clone)]
#[must_use]
pub struct Server {
    client: Client,
    limits: Arc<Limits>,
    whose: Arc<str>,
    patience: Duration,
    dry: bool,
}

impl Server {
    /// A server that nobody has asked yet; `name` is for people.
    pub fn new(name: &'static str, client: Client) -> Self {
        Self {
            client,
            limits: Arc::new(Limits {
                name,
                inner: Mutex::default(),
                paused: Notify::new(),
            }),
            whose: "".into(),
            patience: PATIENCE,
            dry: false,
        }
    }

    /// Its client, for watches and for what paces itself.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The same for one of those who take turns.
    pub fn of(&self, whose: &str) -> Self {
        Self {
            whose: whose.into(),
            ..self.clone()
        }
    }

    /// The same for who does not wait until a server that has too much to do has less.
    pub fn hurried(&self) -> Self {
        Self {
            patience: Duration::ZERO,
            ..self.clone()
        }
    }

    /// The same where what is written has no effect: the server only says what would come of it.
    pub fn dry(&self) -> Self {
        Self {
            dry: true,
            ..self.clone()
        }
    }

    /// Whether what is written has no effect.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// The same server with another client.
    pub fn by(&self, client: Client) -> Self {
        Self {
            client,
            ..self.clone()
        }
    }
}

/// What requests are made through: a client, within limits or without.
pub trait Way {
    /// The client.
    fn client(&self) -> &Client;
    /// The limits.
    fn server(&self) -> Option<&Server>;
}

impl Way for Client {
    fn client(&self) -> &Client {
        self
    }

    fn server(&self) -> Option<&Server> {
        None
    }
}

impl Way for Server {
    fn client(&self) -> &Client {
        &self.client
    }

    fn server(&self) -> Option<&Server> {
        Some(self)
    }
}

/// The server asked to be left alone until then, and that is too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held(pub Duration);

impl Server {
    /// Makes a request when it is its turn; `judge` says what its answer tells about the server. One that the server did not
    /// take is made again.
    pub async fn run<T, F>(&self, judge: impl Fn(&T) -> Answer, make: impl Fn() -> F) -> Result<T, Held>
    where
        F: Future<Output = T>,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            let mut permit = self.limits.enter(&self.whose, deadline).await?;
            let result = {
                let mut made = Box::pin(make());
                tokio::select! {
                    biased;
                    result = &mut made => result,
                    () = tokio::time::sleep(LONG) => {
                        permit.put_aside();
                        made.await
                    }
                }
            };
            let answer = judge(&result);
            permit.answer = Some(answer);
            drop(permit);
            let again = matches!(answer, Answer::Refused(_)) && self.limits.free_at() < deadline;
            if !again {
                return Ok(result);
            }
        }
    }
}

struct Limits {
    name: &'static str,
    inner: Mutex<Inner>,
    /// A pause has begun: who waits must look again when it ends.
    paused: Notify,
}

#[derive(Default)]
struct Inner {
    window: Window,
    waiting: Fair<Arc<str>, oneshot::Sender<Permit>>,
}

/// The right to make one request. Given back when it is dropped.
struct Permit {
    limits: Arc<Limits>,
    began: Instant,
    answer: Option<Answer>,
    aside: bool,
}

impl Permit {
    /// Its request lasts long: others may go meanwhile.
    fn put_aside(&mut self) {
        self.aside = true;
        self.limits.lock().window.put_aside();
        self.limits.let_in(Instant::now());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let limits = self.limits.clone();
        let now = Instant::now();
        let may = {
            let mut inner = limits.lock();
            let before = inner.window.size();
            if self.aside {
                inner.window.end_aside(self.began, now, self.answer);
            } else {
                inner.window.end(self.began, now, self.answer);
            }
            let after = inner.window.size();
            if after < before {
                tracing::debug!(server = limits.name, requests = after, "fewer requests at a time");
            }
            inner.window.may(now)
        };
        match may {
            May::After(_) => limits.paused.notify_waiters(),
            May::Go | May::Full => limits.let_in(now),
        }
    }
}

impl Limits {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the server may be asked again.
    fn free_at(&self) -> Instant {
        let now = Instant::now();
        match self.lock().window.may(now) {
            May::After(until) => until,
            May::Go | May::Full => now,
        }
    }

    async fn enter(self: &Arc<Self>, whose: &Arc<str>, deadline: Instant) -> Result<Permit, Held> {
        let (tell, mut told) = oneshot::channel();
        self.lock().waiting.push(whose.clone(), tell);
        let gone = |_| Held(Duration::ZERO);
        loop {
            let mut paused = std::pin::pin!(self.paused.notified());
            paused.as_mut().enable();
            let now = Instant::now();
            self.let_in(now);
            let may = self.lock().window.may(now);
            match may {
                May::After(until) if until > deadline => {
                    told.close();
                    // It may have been let in at this very moment.
                    return told.try_recv().map_err(|_| Held(until - now));
                }
                May::After(until) => tokio::select! {
                    permit = &mut told => return permit.map_err(gone),
                    () = tokio::time::sleep_until(until) => {}
                },
                May::Go | May::Full => tokio::select! {
                    permit = &mut told => return permit.map_err(gone),
                    () = paused => {}
                },
            }
        }
    }

    /// Lets in whoever may be.
    fn let_in(self: &Arc<Self>, now: Instant) {
        let mut nobody = Vec::new();
        {
            let mut inner = self.lock();
            while inner.window.may(now) == May::Go {
                let Some(tell) = inner.waiting.pop(|tell| !tell.is_closed()) else {
                    break;
                };
                inner.window.begin();
                let permit = Permit {
                    limits: self.clone(),
                    began: now,
                    answer: None,
                    aside: false,
                };
                if let Err(permit) = tell.send(permit) {
                    nobody.push(permit);
                }
            }
        }
        // Dropped outside of the lock: that lets in the next.
        drop(nobody);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn server() -> Server {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(
                kube::client::Body::empty(),
            )))
        });
        Server::new("test", Client::new(nobody, "default"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_does_not_take_is_made_again_and_its_pauses_are_kept() {
        let server = server();
        let (going, most, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let pause = Duration::from_secs(1);
        let paused = std::sync::Mutex::new(None);
        let judge = |taken: &bool| {
            if *taken {
                Answer::Fine
            } else {
                Answer::Refused(Some(pause))
            }
        };
        // It bears ten at a time.
        let make = || async {
            // At the very moment of a refusal another may begin that was let in before.
            let from = paused.lock().unwrap().unwrap_or(Instant::now());
            let since = Instant::now() - from;
            assert!(
                since.is_zero() || since >= pause,
                "asked during a pause: {since:?}"
            );
            let now = going.fetch_add(1, Ordering::Relaxed) + 1;
            most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            going.fetch_sub(1, Ordering::Relaxed);
            if now > 10 {
                refused.fetch_add(1, Ordering::Relaxed);
                *paused.lock().unwrap() = Some(Instant::now());
            }
            now <= 10
        };
        let all = (0..200).map(|number| {
            let (mine, make) = (server.of(&format!("w{}", number % 7)), &make);
            async move { mine.run(judge, make).await }
        });
        let done = futures::future::join_all(all).await;
        assert!(done.iter().all(|d| *d == Ok(true)), "{done:?}");
        assert_eq!(most.into_inner(), 32);
        assert!(refused.into_inner() < 100);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_can_not_wait_is_told() {
        let server = server();
        let long = Duration::from_secs(60);
        let no = server.run(|()| Answer::Refused(Some(long)), || async {}).await;
        assert_eq!(
            no,
            Ok(()),
            "the answer, because waiting for another takes too long"
        );
        let began = Instant::now();
        let fine = |(): &()| Answer::Fine;
        assert_eq!(server.run(fine, || async {}).await, Err(Held(long)));
        assert_eq!(server.hurried().run(fine, || async {}).await, Err(Held(long)));
        assert_eq!(began.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(55)).await;
        assert_eq!(server.run(fine, || async {}).await, Ok(()));
        assert_eq!(began.elapsed(), long);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_holds_up_nobody() {
        let server = server();
        let (hanging, one) = (server.of("hanging"), server.of("one"));
        let never = futures::future::join_all((0..200).map(|_| {
            let hang = || tokio::time::sleep(Duration::from_secs(30));
            hanging.run(|()| Answer::Fine, hang)
        }));
        let began = Instant::now();
        let others = async {
            let mut longest = Duration::ZERO;
            for _ in 0..20 {
                let asked = Instant::now();
                let quick = || tokio::time::sleep(Duration::from_millis(10));
                one.run(|()| Answer::Fine, quick).await.unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        };
        let (all, longest) = tokio::join!(never, others);
        assert!(longest <= LONG + Duration::from_millis(10), "{longest:?}");
        assert!(all.iter().all(Result::is_ok));
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert_eq!(server.limits.lock().window.may(Instant::now()), May::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_much_does_not_hold_up_others_and_who_gives_up_leaves_no_gap() {
        let server = server();
        let slow = || tokio::time::sleep(Duration::from_millis(10));
        let much = server.of("much");
        let flood = futures::future::join_all((0..1000).map(|_| much.run(|()| Answer::Fine, slow)));
        let one = server.of("one");
        let given_up = futures::future::join_all(
            (0..100)
                .map(|_| tokio::time::timeout(Duration::from_millis(1), one.run(|()| Answer::Fine, slow))),
        );
        let began = Instant::now();
        let quick = async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            one.run(|()| Answer::Fine, slow).await.unwrap();
            began.elapsed()
        };
        let (flooded, _, quick) = tokio::join!(flood, given_up, quick);
        assert!(quick <= Duration::from_millis(25), "{quick:?}");
        assert!(flooded.iter().all(Result::is_ok));
        assert!(server.limits.lock().waiting.pop(|_| true).is_none());
    }
}
