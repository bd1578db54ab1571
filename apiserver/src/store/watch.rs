//! Watching: a channel is a view of the revision log that many watches read, each at its own position.
//!
//! A watch is a position and a reference; while it waits it costs one list node in its channel's [`Notify`]. Nothing is
//! copied to it and nobody waits for it: it reads when it comes, and when the log has moved on without it, it is told.

use super::{Event, Shared, StoreError, read};
use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Spare places a shrunk log keeps.
const SPARE: usize = 16;

/// The kept events of one scope and whoever waits for the next.
pub(super) struct Channel {
    queue: Mutex<Queue>,
    wake: Notify,
}

struct Queue {
    log: VecDeque<Arc<Event>>,
    /// How many events left at the front: the position of `log[0]`.
    popped: u64,
    /// The revision up to which events may be missing.
    dropped: u64,
}

impl Channel {
    /// A channel with the events of `log`, all there were after revision `dropped`.
    pub(super) fn new(dropped: u64, log: VecDeque<Arc<Event>>) -> Arc<Self> {
        let queue = Mutex::new(Queue {
            log,
            popped: 0,
            dropped,
        });
        Arc::new(Self {
            queue,
            wake: Notify::new(),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event without waking anyone: see [`Channel::wake`].
    pub(super) fn push(&self, event: &Arc<Event>) {
        self.queue().log.push_back(Arc::clone(event));
    }

    /// Wakes every waiting watch. Called when the store's lock is free again, so that they can go on at once.
    pub(super) fn wake(&self) {
        self.wake.notify_waiters();
    }

    /// Forgets the oldest event if it is the one of `revision`.
    pub(super) fn forget(&self, revision: u64) -> Option<Arc<Event>> {
        let mut queue = self.queue();
        if queue.log.front()?.revision != revision {
            return None;
        }
        queue.popped += 1;
        queue.dropped = revision;
        let event = queue.log.pop_front();
        let want = queue.log.len() * 2 + SPARE;
        if queue.log.capacity() > want * 2 {
            queue.log.shrink_to(want);
        }
        event
    }

    /// The revision up to which events may be missing.
    pub(super) fn dropped(&self) -> u64 {
        self.queue().dropped
    }

    /// Whether no event is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.queue().log.is_empty()
    }

    /// How many events are kept.
    pub(super) fn len(&self) -> usize {
        self.queue().log.len()
    }

    /// Revision of the oldest kept event.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.queue().log.front().map(|e| e.revision)
    }

    /// The events after a revision, oldest first, or [`StoreError::Compacted`].
    pub(super) fn since(&self, revision: u64) -> Result<Vec<Arc<Event>>, StoreError> {
        let queue = self.queue();
        let start = queue.start(revision)?;
        Ok(queue.log.range(start..).cloned().collect())
    }
}

impl Queue {
    /// Index of the first event after a revision.
    fn start(&self, revision: u64) -> Result<usize, StoreError> {
        if revision < self.dropped {
            return Err(StoreError::Compacted(self.dropped));
        }
        Ok(self.log.partition_point(|e| e.revision <= revision))
    }
}

/// A position in the log: every change of its scope after it, in order, none left out and none twice.
pub struct Watch {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    /// Place of the next event, counted from the channel's beginning.
    position: u64,
    /// Everything in scope up to here was delivered.
    seen: u64,
}

impl Watch {
    pub(super) fn start(
        shared: Arc<Shared>,
        channel: Arc<Channel>,
        after_revision: u64,
    ) -> Result<Self, StoreError> {
        let position = {
            let queue = channel.queue();
            queue.popped + queue.start(after_revision)? as u64
        };
        Ok(Self {
            shared,
            channel,
            position,
            seen: after_revision,
        })
    }

    /// Waits for the next change. [`StoreError::Compacted`] when the log moved on past this watch: then the watcher must
    /// list again. Can be dropped while it waits; nothing is lost by that.
    pub async fn next(&mut self) -> Result<Arc<Event>, StoreError> {
        let channel = Arc::clone(&self.channel);
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            let mut woken = pin!(channel.wake.notified());
            // Registered before the second look, so that no event comes in between unnoticed.
            woken.as_mut().enable();
            if let Some(event) = self.try_next() {
                return event;
            }
            woken.await;
        }
    }

    /// The next change if it has happened already.
    pub fn try_next(&mut self) -> Option<Result<Arc<Event>, StoreError>> {
        let queue = self.channel.queue();
        let Some(index) = self.position.checked_sub(queue.popped) else {
            return Some(Err(StoreError::Compacted(queue.dropped)));
        };
        let event = Arc::clone(queue.log.get(usize::try_from(index).ok()?)?);
        drop(queue);
        self.position += 1;
        self.seen = event.revision;
        Some(Ok(event))
    }

    /// A revision up to which every change in scope was delivered: what a bookmark may say.
    pub fn revision(&self) -> u64 {
        // The store's revision is read first: what comes between the two looks is then not claimed as delivered.
        let current = read(&self.shared).revision();
        let queue = self.channel.queue();
        if self.position == queue.popped + queue.log.len() as u64 {
            current.max(self.seen)
        } else {
            self.seen
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
