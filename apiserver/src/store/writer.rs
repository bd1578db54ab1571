//! The one thread that writes: group commit.
//!
//! Whatever waits is taken as one batch. Each write is checked against memory and the batch before it, so a batch has
//! the outcome that its writes would have had one by one. Memory changes after the disk has the batch, never before.

use super::disk::Disk;
use super::state::{Overlay, Write};
use super::watch::Channel;
use super::{Entry, Event, Key, Shared, StoreError, read, write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Most writes of one transaction: bounds how long the first of them waits for the others' pages.
const BATCH: usize = 1024;
/// How often a disk that failed is tried while nobody writes.
const PROBE: Duration = Duration::from_secs(1);

type Answer = Result<Arc<Entry>, StoreError>;

struct Job {
    write: Write,
    answer: oneshot::Sender<Answer>,
}

/// The way to the writer thread. Closed or dropped, it lets the thread finish what waits and close the file.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    trouble: Arc<Trouble>,
    #[cfg(test)]
    submitted: std::sync::atomic::AtomicUsize,
}

/// Why the last commit failed, if it did.
type Trouble = Mutex<Option<String>>;

fn told(trouble: &Trouble) -> MutexGuard<'_, Option<String>> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says how the last attempt to write went.
fn tell(trouble: &Trouble, written: &Result<(), StoreError>) {
    let now = written.as_ref().err().map(ToString::to_string);
    let before = std::mem::replace(&mut *told(trouble), now);
    if before.is_some() && written.is_ok() {
        tracing::info!("the store can write again");
    }
}

fn stopped() -> StoreError {
    StoreError::Disk("the writer thread has stopped".into())
}

impl Writer {
    pub(super) fn start(mut disk: Disk, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let trouble = Arc::new(Trouble::default());
        let seen = Arc::clone(&trouble);
        let run = move || loop {
            let failing = told(&seen).is_some();
            let next = if failing {
                queue.recv_timeout(PROBE)
            } else {
                queue.recv().map_err(RecvTimeoutError::from)
            };
            match next {
                Ok(first) => {
                    let batch = std::iter::once(first)
                        .chain(queue.try_iter())
                        .take(BATCH)
                        .collect();
                    commit_batch(&mut disk, &shared, &seen, batch);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let revision = read(&shared).revision();
                    tell(&seen, &disk.note(revision, |key| current(&shared, key)));
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|e| StoreError::Disk(format!("cannot start the writer thread: {e}")))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
            trouble,
            #[cfg(test)]
            submitted: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    pub(super) fn trouble(&self) -> Option<String> {
        told(&self.trouble).clone()
    }

    pub(super) async fn commit(&self, write: Write) -> Answer {
        self.submit(write)?.await.map_err(|_| stopped())?
    }

    /// Queues a write; the answer comes when the disk has it.
    pub(super) fn submit(&self, write: Write) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref()
            .ok_or_else(stopped)?
            .send(Job { write, answer })
            .map_err(|_| stopped())?;
        #[cfg(test)]
        self.submitted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(answered)
    }

    /// Refuses further writes, and returns when those that wait are on disk and the file is closed.
    pub(super) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Held while it is waited for: a second caller returns no sooner than the first.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic of the thread was reported when it happened; the file is closed either way.
            let _ = thread.join();
        }
    }

    #[cfg(test)]
    pub(super) fn submitted(&self) -> usize {
        self.submitted.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn current(shared: &Shared, key: &Key) -> Option<Arc<Entry>> {
    read(shared)
        .get(&key.resource, &key.namespace, &key.name)
        .cloned()
}

fn commit_batch(disk: &mut Disk, shared: &Shared, trouble: &Trouble, batch: Vec<Job>) {
    let mut overlay = Overlay::with_capacity(batch.len());
    let mut accepted: Vec<(Arc<Event>, oneshot::Sender<Answer>)> = Vec::with_capacity(batch.len());
    let mut refused = Vec::new();
    {
        let state = read(shared);
        let mut revision = state.revision();
        for Job { write, answer } in batch {
            match state.plan(write, &overlay, revision + 1) {
                Ok(event) => {
                    revision += 1;
                    let now = (!event.deleted).then(|| Arc::clone(&event.entry));
                    overlay.insert(event.entry.key.clone(), now);
                    accepted.push((event, answer));
                }
                Err(error) => refused.push((error, answer)),
            }
        }
    }
    let written = if accepted.is_empty() {
        Ok(())
    } else {
        // No lock is held here: readers go on while the disk works, and no one else writes.
        let written = disk.commit(accepted.iter().map(|(event, _)| event), |key| {
            current(shared, key)
        });
        // Before anybody is answered, who may ask next.
        tell(trouble, &written);
        written
    };
    match written {
        Ok(()) => {
            publish(shared, accepted.iter().map(|(event, _)| event));
            for (event, answer) in accepted {
                // A caller that went away does not undo its write.
                let _ = answer.send(Ok(Arc::clone(&event.entry)));
            }
            for (error, answer) in refused {
                let _ = answer.send(Err(error));
            }
        }
        Err(error) => {
            tracing::error!(%error, writes = accepted.len(), "the store could not write");
            // The refused ones were judged by writes that did not happen, so they get the same answer.
            let all = accepted
                .into_iter()
                .map(|(_, a)| a)
                .chain(refused.into_iter().map(|(_, a)| a));
            for answer in all {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

fn publish<'a>(shared: &Shared, events: impl Iterator<Item = &'a Arc<Event>>) {
    let mut wake: Vec<Arc<Channel>> = Vec::new();
    {
        let mut state = write(shared);
        for event in events {
            state.apply(event, &mut wake);
        }
    }
    wake.sort_unstable_by_key(Arc::as_ptr);
    wake.dedup_by(|a, b| Arc::ptr_eq(a, b));
    for channel in wake {
        channel.wake();
    }
}

/// Commits one write of a store without a disk.
pub(super) fn commit_in_memory(shared: &Shared, job: Write) -> Answer {
    let mut wake = Vec::with_capacity(4);
    let entry = {
        let mut state = write(shared);
        let event = state.plan(job, &Overlay::new(), state.revision() + 1)?;
        state.apply(&event, &mut wake);
        Arc::clone(&event.entry)
    };
    for channel in wake {
        channel.wake();
    }
    Ok(entry)
}
