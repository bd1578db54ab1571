//! What a connection is busy with: it ends when nothing is asked of it for long, or when an answer is left unread for long.
//!
//! HTTP/2's pings tell a peer that is there from one that is not, but not what it is there for. And while a peer grants a
//! stream no window, hyper asks the answer for nothing more: a watch would see neither its deadline nor that its user lost
//! the right to it.

use http_body::{Body, Frame, SizeHint};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Why a connection is to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing was asked for long.
    Idle,
    /// An answer was left unread for long.
    Unread,
}

/// The exchanges of one connection.
pub(super) struct Activity(Mutex<State>);

struct State {
    next: u64,
    /// The exchanges that go on, with the time at which a piece was given and no other asked for since.
    open: HashMap<u64, Option<Instant>>,
    /// When the last one ended.
    idle_since: Instant,
}

impl State {
    /// What is so now, or else when to look again.
    fn look(&self, now: Instant, idle: Duration, unread: Duration) -> Result<Over, Instant> {
        if self.open.is_empty() {
            let end = self.idle_since + idle;
            // Looked at again before it is over: by then there may be an answer to see to.
            return if end <= now {
                Ok(Over::Idle)
            } else {
                Err(end.min(now + unread))
            };
        }
        let first = self.open.values().flatten().min().map(|given| *given + unread);
        match first {
            Some(end) if end <= now => Ok(Over::Unread),
            Some(end) => Err(end),
            None => Err(now + idle.min(unread)),
        }
    }
}

impl Activity {
    /// A connection that begins.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            next: 0,
            open: HashMap::new(),
            idle_since: Instant::now(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request came.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.open.insert(id, None);
        Exchange {
            activity: Arc::clone(self),
            id,
        }
    }

    /// Returns when the connection is to end.
    pub(super) async fn over(&self, idle: Duration, unread: Duration) -> Over {
        loop {
            let looked = self.state().look(Instant::now(), idle, unread);
            match looked {
                Ok(over) => return over,
                Err(again) => sleep_until(again).await,
            }
        }
    }
}

/// A request and its answer, until that is through.
pub(super) struct Exchange {
    activity: Arc<Activity>,
    id: u64,
}

impl Exchange {
    fn given(&self, at: Option<Instant>) {
        self.activity.state().open.insert(self.id, at);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.open.remove(&self.id);
        state.idle_since = Instant::now();
    }
}

/// The body of an answer, watched over.
pub(super) struct Watched<B> {
    body: Pin<Box<B>>,
    exchange: Exchange,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        Self {
            body: Box::pin(body),
            exchange,
        }
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = self.body.as_mut().poll_frame(cx);
        self.exchange.given(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_connection() {
        let second = Duration::from_secs;
        let start = Instant::now();
        let at = |s: u64| start + second(s);
        for (open, now, want) in [
            (vec![], 5, Err(at(10))),
            (vec![], 10, Ok(Over::Idle)),
            // An answer that waits for something to tell is nobody's fault.
            (vec![None], 100, Err(at(107))),
            (vec![None, Some(100)], 102, Err(at(107))),
            (vec![None, Some(100), Some(102)], 107, Ok(Over::Unread)),
        ] {
            let open: Vec<Option<u64>> = open;
            let state = State {
                next: 0,
                open: (0..).zip(open.iter().map(|given| given.map(at))).collect(),
                idle_since: start,
            };
            assert_eq!(state.look(at(now), second(10), second(7)), want, "{open:?} {now}");
        }
    }
}
