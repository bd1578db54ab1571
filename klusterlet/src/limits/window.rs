//! How many requests one API server gets at the same time: one more for every round that it answers well, half as many when
//! it says that it has too much to do, and somewhat fewer when its answers become slow or fail.
//!
//! There is no fixed rate: what a server bears differs by orders of magnitude, and only the server knows.

use std::time::Duration;
use tokio::time::Instant;

/// At the start, at least, and at most so many at a time.
const SIZE: (f64, f64, f64) = (32.0, 1.0, 256.0);
/// Slow or failing answers alone do not bring it below this.
const GENTLE_FLOOR: f64 = 4.0;
/// A round in which even the fastest answer took this many times as long as usual …
const SLOWER: u32 = 4;
/// … and this much longer is a sign of too much load.
const SLACK: Duration = Duration::from_millis(50);
/// Answers that make a round, at least.
const ROUND: u32 = 8;
/// Requests that have lasted long and wait beside the others, at most.
const ASIDE: usize = 256;
/// A server that refuses without saying for how long is left alone this long, doubled each time up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Longest pause a server can ask for: nobody may silence the agent for good.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What came of a request, as far as it tells about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answered: also that something is forbidden, or not there.
    Fine,
    /// It has too much to do, and may say when to come again.
    Refused(Option<Duration>),
    /// It failed, or did not answer.
    Failing,
}

/// Whether the next request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// It may.
    Go,
    /// When another has ended.
    Full,
    /// Not before.
    After(Instant),
}

/// The state of one server.
#[derive(Debug)]
pub struct Window {
    size: f64,
    in_flight: usize,
    /// Of those, they have lasted long.
    aside: usize,
    /// All of it was in use, and most of it still is.
    used: bool,
    /// Requests that began before it shrank tell of the time before.
    shrunk: Option<Instant>,
    held: Option<Instant>,
    refusals: u32,
    usual: Option<Duration>,
    round: (u32, Duration),
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: SIZE.0,
            in_flight: 0,
            aside: 0,
            used: false,
            shrunk: None,
            held: None,
            refusals: 0,
            usual: None,
            round: (0, Duration::MAX),
        }
    }
}

impl Window {
    /// How many at a time.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 256
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Whether another request may begin.
    pub fn may(&self, now: Instant) -> May {
        match self.held {
            Some(until) if now < until => May::After(until),
            _ if self.counted() < self.size() => May::Go,
            _ => May::Full,
        }
    }

    /// Requests that take up room.
    fn counted(&self) -> usize {
        self.in_flight - self.aside.min(ASIDE)
    }

    /// One has lasted long, as where a webhook hangs: it makes room for others and waits on.
    pub fn put_aside(&mut self) {
        self.aside += 1;
    }

    /// One begins.
    pub fn begin(&mut self) {
        self.in_flight += 1;
        self.used |= self.counted() >= self.size();
    }

    /// One that was put aside ends like any other.
    pub fn end_aside(&mut self, began: Instant, now: Instant, answer: Option<Answer>) {
        self.aside = self.aside.saturating_sub(1);
        self.end(began, now, answer);
    }

    /// One that began at `began` has ended; `None`: nobody waited for its answer.
    pub fn end(&mut self, began: Instant, now: Instant, answer: Option<Answer>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let used = self.used;
        self.used &= self.counted() >= self.size() / 2;
        match answer {
            None => {}
            Some(Answer::Fine) => {
                self.refusals = 0;
                if used {
                    self.size = (self.size + 1.0 / self.size).min(SIZE.2);
                }
                self.took(began, now);
            }
            Some(Answer::Failing) => {
                self.shrink(began, now, 0.7, GENTLE_FLOOR);
            }
            Some(Answer::Refused(pause)) => {
                let unsaid = PAUSES.0.saturating_mul(1 << self.refusals.min(10)).min(PAUSES.1);
                let until = now + pause.unwrap_or(unsaid).min(LONGEST_PAUSE);
                self.held = self.held.max(Some(until));
                if self.shrink(began, now, 0.5, SIZE.1) {
                    self.refusals += 1;
                }
            }
        }
    }

    /// Once a round: several requests in flight tell of the same moment.
    fn shrink(&mut self, began: Instant, now: Instant, factor: f64, floor: f64) -> bool {
        if self.shrunk.is_some_and(|at| began < at) {
            return false;
        }
        self.shrunk = Some(now);
        self.size = (self.size * factor).max(floor.min(self.size));
        self.round = (0, Duration::MAX);
        true
    }

    /// The fastest of a round counts: one slow webhook is no slow server.
    fn took(&mut self, began: Instant, now: Instant) {
        let (answers, fastest) = self.round;
        self.round = (answers + 1, fastest.min(now.duration_since(began)));
        if self.round.0 < ROUND || usize::try_from(self.round.0).unwrap_or(usize::MAX) < self.size() {
            return;
        }
        let fastest = self.round.1;
        self.round = (0, Duration::MAX);
        if self.usual.is_some_and(|usual| fastest > usual * SLOWER + SLACK) {
            self.shrink(began, now, 0.8, GENTLE_FLOOR);
        }
        // What is slow for long becomes what is usual.
        self.usual = Some(
            self.usual
                .map_or(fastest, |usual| fastest.min(usual.mul_f64(1.1))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes `bears` requests at a time, in rounds of as many as may go. The sizes after each round.
    fn rounds(
        window: &mut Window,
        now: &mut Instant,
        count: usize,
        bears: usize,
        pause: Option<u64>,
    ) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..count {
            if let May::After(until) = window.may(*now) {
                *now = until;
            }
            let began = *now;
            let mut going = 0;
            while window.may(*now) == May::Go {
                window.begin();
                going += 1;
            }
            *now += Duration::from_millis(5);
            for number in 0..going {
                let answer = if number < bears {
                    Answer::Fine
                } else {
                    Answer::Refused(pause.map(Duration::from_millis))
                };
                window.end(began, *now, Some(answer));
            }
            sizes.push(window.size());
        }
        sizes
    }

    #[test]
    fn it_finds_what_a_server_bears() {
        for bears in [1, 3, 20, 100] {
            let mut window = Window::default();
            let sizes = rounds(&mut window, &mut Instant::now(), 400, bears, Some(100));
            let settled = &sizes[200..];
            let (least, most) = (settled.iter().min().unwrap(), settled.iter().max().unwrap());
            assert!(*most <= bears + 1, "{bears}: up to {most}");
            assert!(*least >= bears / 2, "{bears}: down to {least}");
        }
    }

    #[test]
    fn it_grows_only_when_it_is_used() {
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..1000 {
            window.begin();
            window.end(now, now, Some(Answer::Fine));
        }
        assert_eq!(window.size(), 32);
        let sizes = rounds(&mut window, &mut Instant::now(), 1000, usize::MAX, None);
        assert_eq!(sizes.last(), Some(&256));
    }

    #[test]
    fn one_moment_counts_once_and_pauses_are_kept() {
        let (mut window, now) = (Window::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        (0..10).for_each(|_| window.begin());
        for _ in 0..9 {
            window.end(now, later, Some(Answer::Refused(Some(Duration::from_secs(2)))));
        }
        assert_eq!(window.size(), 16);
        assert_eq!(window.may(later), May::After(later + Duration::from_secs(2)));
        assert_eq!(window.may(later + Duration::from_secs(2)), May::Go);
        window.end(
            later,
            later,
            Some(Answer::Refused(Some(Duration::from_secs(9999)))),
        );
        assert_eq!(window.may(later), May::After(later + LONGEST_PAUSE));
    }

    #[test]
    fn what_lasts_long_makes_room_for_so_many() {
        let (mut window, now) = (Window::default(), Instant::now());
        let mut going = 0;
        while window.may(now) == May::Go {
            window.begin();
            window.put_aside();
            going += 1;
        }
        assert_eq!(going, ASIDE + 32);
        let later = now + Duration::from_secs(30);
        window.end_aside(now, later, Some(Answer::Fine));
        assert_eq!(window.may(later), May::Go);
        for _ in 1..going {
            window.end_aside(now, later, None);
        }
        assert_eq!((window.in_flight, window.aside), (0, 0));
    }

    #[test]
    fn pauses_that_nobody_names_grow_and_are_forgotten() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            window.begin();
            window.end(now, now, Some(Answer::Refused(None)));
            if let May::After(until) = window.may(now) {
                pauses.push((until - now).as_millis());
                now = until;
            }
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10000, 10000]);
        window.begin();
        window.end(now, now, Some(Answer::Fine));
        window.begin();
        window.end(now, now, Some(Answer::Refused(None)));
        assert_eq!(window.may(now), May::After(now + PAUSES.0));
    }

    #[test]
    fn slow_and_failing_answers_shrink_it_gently() {
        let mut window = Window::default();
        let mut now = Instant::now();
        let round = |window: &mut Window, now: &mut Instant, ms: &[u64]| {
            let began = *now;
            let longest = Duration::from_millis(*ms.iter().max().unwrap());
            for ms in ms.iter().cycle().take(window.size().max(8)) {
                window.begin();
                window.end(began, began + Duration::from_millis(*ms), Some(Answer::Fine));
            }
            *now += longest;
        };
        round(&mut window, &mut now, &[5]);
        round(&mut window, &mut now, &[5, 3000]);
        assert_eq!(window.size(), 32, "some are slow: a webhook");
        round(&mut window, &mut now, &[60]);
        assert_eq!(window.size(), 32, "as slow as a busy moment");
        round(&mut window, &mut now, &[400]);
        assert_eq!(window.size(), 25, "all are slow");
        for _ in 0..30 {
            round(&mut window, &mut now, &[400]);
        }
        assert!(window.size() >= 4);
        let settled = window.size();
        round(&mut window, &mut now, &[400]);
        assert_eq!(window.size(), settled, "slow has become usual");
        for _ in 0..30 {
            now += Duration::from_secs(1);
            window.begin();
            window.end(now, now, Some(Answer::Failing));
        }
        assert_eq!(window.size(), 4);
        window.begin();
        window.end(now, now, None);
        assert_eq!(window.in_flight, 0);
    }
}
