//! What is to be told at the hub, what was told already, and how fast it may be told. Pure: it is given the time.
//!
//! The same thing about the same object is told once and then counted. Warnings come first; what does not fit is left out,
//! Normal events before Warnings and old ones before new. A crash loop, a flood, or a hub that is away for days costs no
//! more than the bounds here.

use super::recent::Recent;
use super::seen::{Seen, Source, Subject};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;
use tokio::time::Instant;

/// A budget of requests.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// So many at once …
    pub burst: f64,
    /// … and then so many a second.
    pub per_second: f64,
}

/// Bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events that wait to be told.
    pub pending: usize,
    /// Of these, of one work.
    pub pending_per_work: usize,
    /// Events that are remembered so that they are counted instead of told again.
    pub remembered: usize,
    /// Budget of the whole cluster.
    pub total: Rate,
    /// Budget of one work.
    pub work: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 256,
            pending_per_work: 64,
            remembered: 1024,
            total: Rate {
                burst: 100.0,
                per_second: 2.0,
            },
            work: Rate {
                burst: 30.0,
                per_second: 0.5,
            },
        }
    }
}

/// Different messages of one object and reason that are told apart, within the time below; further ones are combined, as
/// client-go does it.
const VARIETY: usize = 10;
const VARIETY_WINDOW: Duration = Duration::from_secs(600);
/// Events of the managed cluster that are counted each for itself in one event at the hub.
const SOURCES: usize = 4;

/// What makes an event at the hub the same event.
pub type Id = [u8; 8];

/// An event to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What makes it the same event.
    pub id: Id,
    /// Name of the work.
    pub work: String,
    /// UID of the work.
    pub work_uid: String,
    /// Whether it is a Warning.
    pub warning: bool,
    /// The object on the managed cluster.
    pub subject: Subject,
    /// Why, in one word.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// It stands for several that say nearly the same.
    pub combined: bool,
    /// Who told on the managed cluster.
    pub source: Source,
    /// When it first happened.
    pub first: Timestamp,
    /// When it last happened.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// The hub has it already.
    pub known: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Tell this.
    Tell(Box<Note>),
    /// Nothing may be told before this has passed.
    Wait(Duration),
    /// There is nothing to tell.
    Idle,
}

/// How often something happened.
#[derive(Debug, Clone, Default)]
struct Tally {
    /// Events of the managed cluster, and the count each has.
    sources: VecDeque<(u64, u64)>,
    /// Counts of those no longer in `sources`.
    folded: u64,
    /// Occurrences since this agent looks.
    witnessed: u64,
    /// The hub's count before that.
    before: u64,
    /// The hub has an event of it.
    known: bool,
    first: Timestamp,
}

impl Tally {
    /// Counts what an event says. False when it says nothing new.
    fn count(&mut self, event: u64, says: u64, fresh: bool) -> bool {
        let known = self.sources.iter_mut().find(|(known, _)| *known == event);
        let new = if let Some((_, counted)) = known {
            let new = says.saturating_sub(*counted);
            *counted = says.max(*counted);
            new
        } else {
            self.sources.push_back((event, says));
            if self.sources.len() > SOURCES
                && let Some((_, count)) = self.sources.pop_front()
            {
                self.folded += count;
            }
            // What happened before this agent looked may have been told by the one before.
            if fresh { says } else { 1 }
        };
        self.witnessed += new;
        new > 0
    }

    fn total(&self) -> u64 {
        let says: u64 = self.sources.iter().map(|(_, count)| count).sum();
        (self.before + self.witnessed).max(self.folded + says)
    }
}

#[derive(Debug)]
struct Variety {
    messages: Vec<u64>,
    since: Instant,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self {
            tokens: rate.burst,
            at: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let grown = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second;
        self.tokens = (self.tokens + grown).min(rate.burst);
        self.at = now;
    }

    /// How long until there are so many tokens.
    fn wait(&self, rate: Rate, need: f64) -> Duration {
        if self.tokens >= need {
            return Duration::ZERO;
        }
        // Rounded up: a wait that ends a moment early would only be followed by another.
        Duration::from_secs_f64((need - self.tokens) / rate.per_second) + Duration::from_millis(1)
    }
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    tallies: Recent<Id, Tally>,
    variety: Recent<u64, Variety>,
    pending: VecDeque<Note>,
    total: Option<Bucket>,
    works: HashMap<String, Bucket>,
    left_out: u64,
}

impl Ledger {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            tallies: Recent::new(limits.remembered),
            variety: Recent::new(limits.remembered),
            limits,
            pending: VecDeque::new(),
            total: None,
            works: HashMap::new(),
            left_out: 0,
        }
    }

    /// An event of a work's object was seen. `since` is when this agent began to look. True when there is something to tell.
    pub fn record(
        &mut self,
        now: Instant,
        since: Timestamp,
        (work, work_uid): (&str, &str),
        seen: &Seen,
    ) -> bool {
        let reason = seen.reason.as_deref().unwrap_or_default();
        let message = seen.message.as_deref().unwrap_or_default();
        let kind = (work_uid, &seen.subject, seen.is_warning(), reason);
        let combined = self.is_combined(now, hash(&kind), hash(&message));
        let id = if combined {
            digest(work_uid, seen, None)
        } else {
            digest(work_uid, seen, Some(message))
        };
        let Some(tally) = self.tallies.entry(id, || Tally {
            first: seen.first(),
            ..Tally::default()
        }) else {
            return false;
        };
        tally.first = tally.first.min(seen.first());
        if !tally.count(hash(&seen.metadata.uid), seen.count(), seen.first() >= since) {
            return false;
        }
        if let Some(waiting) = self.pending.iter_mut().find(|n| n.id == id) {
            if seen.last() >= waiting.last {
                waiting.last = seen.last();
                message.clone_into(&mut waiting.message);
            }
            return true;
        }
        self.push(Note {
            id,
            work: work.to_owned(),
            work_uid: work_uid.to_owned(),
            warning: seen.is_warning(),
            subject: seen.subject.clone(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            combined,
            source: seen.source(),
            first: seen.first(),
            last: seen.last(),
            count: 1,
            known: false,
        })
    }

    /// Whether there were so many different messages of this kind lately that this one is not told by itself.
    fn is_combined(&mut self, now: Instant, kind: u64, message: u64) -> bool {
        let Some(variety) = self.variety.entry(kind, || Variety {
            messages: Vec::new(),
            since: now,
        }) else {
            return false;
        };
        if now.saturating_duration_since(variety.since) >= VARIETY_WINDOW {
            variety.messages.clear();
            variety.since = now;
        }
        if variety.messages.contains(&message) {
            return false;
        }
        if variety.messages.len() >= VARIETY {
            return true;
        }
        variety.messages.push(message);
        false
    }

    /// Queues a note, at the cost of one that matters less where there is no room. False when it is the one left out.
    fn push(&mut self, note: Note) -> bool {
        let of_work = |work: &str| self.pending.iter().filter(|n| n.work == work).count();
        let mine = of_work(&note.work) >= self.limits.pending_per_work;
        if mine || self.pending.len() >= self.limits.pending {
            let oldest = |fits: &dyn Fn(&Note) -> bool| self.pending.iter().position(fits);
            let normal = oldest(&|n| !n.warning && (!mine || n.work == note.work));
            let warning = || {
                let most = self.pending.iter().map(|n| &n.work).max_by_key(|w| of_work(w))?;
                let work = if mine { &note.work } else { most };
                oldest(&|n| n.work == *work)
            };
            self.left_out += 1;
            match normal.or_else(|| if note.warning { warning() } else { None }) {
                Some(index) => drop(self.pending.remove(index)),
                None => return false,
            }
        }
        self.pending.push_back(note);
        true
    }

    /// What to tell now. The note that is returned is no longer queued.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.pending.is_empty() {
            return Next::Idle;
        }
        let Limits {
            total: total_rate,
            work: work_rate,
            ..
        } = self.limits;
        let total = self.total.get_or_insert_with(|| Bucket::full(total_rate, now));
        total.fill(total_rate, now);
        // Normal events leave half of every budget to Warnings.
        let need = |warning: bool, rate: Rate| if warning { 1.0 } else { rate.burst / 2.0 + 1.0 };
        let mut shortest = Duration::MAX;
        let mut chosen = None;
        for (index, note) in self.pending.iter().enumerate() {
            if chosen.is_some() && !note.warning {
                continue;
            }
            let mut wait = total.wait(total_rate, need(note.warning, total_rate));
            if let Some(bucket) = self.works.get_mut(&note.work) {
                bucket.fill(work_rate, now);
                wait = wait.max(bucket.wait(work_rate, need(note.warning, work_rate)));
            }
            shortest = shortest.min(wait);
            if wait.is_zero() {
                chosen = Some(index);
                if note.warning {
                    break;
                }
            }
        }
        let Some(mut note) = chosen.and_then(|index| self.pending.remove(index)) else {
            return Next::Wait(shortest);
        };
        total.tokens -= 1.0;
        self.works.retain(|_, bucket| {
            bucket.fill(work_rate, now);
            bucket.tokens < work_rate.burst
        });
        let bucket = self.works.entry(note.work.clone());
        bucket.or_insert_with(|| Bucket::full(work_rate, now)).tokens -= 1.0;
        if let Some(tally) = self.tallies.get_mut(&note.id) {
            note.count = tally.total();
            note.known = tally.known;
            note.first = tally.first;
        }
        Next::Tell(Box::new(note))
    }

    /// The hub has it.
    pub fn told(&mut self, id: Id) {
        if let Some(tally) = self.tallies.get_mut(&id) {
            tally.known = true;
        }
    }

    /// The hub had it already: an earlier run of the agent told it. The count from now on.
    pub fn learn(&mut self, note: &Note, count: u64, first: Option<Timestamp>) -> u64 {
        let Some(tally) = self.tallies.get_mut(&note.id) else {
            return count.max(note.count);
        };
        tally.known = true;
        tally.before = count;
        tally.first = first.map_or(tally.first, |first| first.min(tally.first));
        tally.total()
    }

    /// The hub has it no more.
    pub fn forget(&mut self, id: Id) {
        if let Some(tally) = self.tallies.get_mut(&id) {
            tally.known = false;
        }
    }

    /// It could not be told: it waits again.
    pub fn give_back(&mut self, note: Note) {
        if self.pending.iter().all(|n| n.id != note.id) && self.push(note)
            // What came later is newer.
            && let Some(note) = self.pending.pop_back()
        {
            self.pending.push_front(note);
        }
    }

    /// How many were left out since the last time it was asked.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The same for every run of the agent and every version of it, as it is part of a name at the hub.
fn digest(work_uid: &str, seen: &Seen, message: Option<&str>) -> Id {
    let subject = &seen.subject;
    let parts = [
        work_uid,
        subject.group(),
        &subject.kind,
        &subject.namespace,
        &subject.name,
        &subject.uid,
        if seen.is_warning() { "Warning" } else { "Normal" },
        seen.reason.as_deref().unwrap_or_default(),
        if message.is_some() { "one" } else { "combined" },
        message.unwrap_or_default(),
    ];
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut id = Id::default();
    id.copy_from_slice(&context.finish().as_ref()[..8]);
    id
}

#[cfg(test)]
mod tests;
