//! Fuzzing by properties: generated input against what must be true of every answer, for as long as one likes.
//!
//! Each test runs for `MUSTER_FUZZ_SECONDS` (a second when it is not set) and says how many cases that were. The first
//! seed is chance, or `MUSTER_FUZZ_SEED`; a failure names the seed that repeats it and shows its smallest input. A case
//! that takes longer than [`TOO_LONG`] is a failure too: nothing a client sends may hold a worker up.

mod applying;
mod bodies;
mod long;
mod patching;
mod requests;
mod schemas;
mod selecting;
mod served;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Cases that share a seed.
const ROUND: u32 = 64;
/// No input of a few kilobytes takes this long, also in a debug build on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(20);

pub(crate) type Outcome = Result<(), TestCaseError>;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs `check` on what `strategy` makes until the time is over.
pub(crate) fn fuzz<S>(name: &str, strategy: &S, check: impl Fn(S::Value) -> Outcome)
where
    S: Strategy,
    S::Value: Debug,
{
    let time = Duration::from_secs(number("MUSTER_FUZZ_SECONDS").unwrap_or(1));
    let first: u64 = number("MUSTER_FUZZ_SEED").unwrap_or_else(rand::random);
    let watch = Watch::over(name);
    let start = Instant::now();
    let mut rounds = 0_u64;
    while rounds == 0 || start.elapsed() < time {
        let seed = first.wrapping_add(rounds);
        let config = Config {
            cases: ROUND,
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, rng(seed));
        let done = runner.run(strategy, |input| {
            let _turn = watch.begin(seed);
            check(input)
        });
        if let Err(error) = done {
            panic!("{name}: {error}\nrepeat with MUSTER_FUZZ_SEED={seed}");
        }
        rounds += 1;
    }
    eprintln!(
        "{name}: {} cases in {:.1} s from MUSTER_FUZZ_SEED={first}",
        rounds * u64::from(ROUND),
        start.elapsed().as_secs_f64()
    );
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Ends the process when a case does not end: no other thread can end it.
struct Watch(Arc<Watched>);

struct Watched {
    begun: Instant,
    /// When the case at hand began, in ms since `begun`, plus one; 0 between cases.
    since: AtomicU64,
    seed: AtomicU64,
    over: AtomicBool,
}

struct Turn<'a>(&'a Watched);

impl Watch {
    fn over(name: &str) -> Self {
        let watched = Arc::new(Watched {
            begun: Instant::now(),
            since: AtomicU64::new(0),
            seed: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let (name, seen) = (name.to_owned(), watched.clone());
        std::thread::spawn(move || {
            while !seen.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                let since = seen.since.load(Ordering::Relaxed);
                let limit = u64::try_from(TOO_LONG.as_millis()).unwrap_or(u64::MAX);
                if since > 0 && seen.now() > since + limit {
                    let seed = seen.seed.load(Ordering::Relaxed);
                    eprintln!("{name}: a case does not end; repeat with MUSTER_FUZZ_SEED={seed}");
                    std::process::exit(101);
                }
            }
        });
        Self(watched)
    }

    fn begin(&self, seed: u64) -> Turn<'_> {
        self.0.seed.store(seed, Ordering::Relaxed);
        self.0.since.store(self.0.now(), Ordering::Relaxed);
        Turn(&self.0)
    }
}

impl Watched {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Numbers that JSON can hold and that text keeps.
fn any_number() -> BoxedStrategy<Value> {
    prop_oneof![
        4 => (-3..4_i64).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => (-1_000_000..1_000_000_i32).prop_map(|n| Value::from(f64::from(n) / 64.0)),
    ]
    .boxed()
}

/// Text: short and plain mostly, so that things meet, and anything at times.
fn any_text() -> BoxedStrategy<String> {
    prop_oneof![
        6 => "[a-c]{0,2}",
        1 => "[ -~]{0,8}",
        1 => any::<String>(),
        1 => prop::sample::select(vec!["true", "null", "1", "1e3", "~", "yes", "2001-01-01", "0x1f", "{}", "é\u{1F600}", "a: b", "- a", "#"])
            .prop_map(String::from),
    ]
    .boxed()
}

/// Any JSON. Names are few, so that objects, patches and schemas speak of the same fields.
fn any_json() -> BoxedStrategy<Value> {
    json_of(any_text())
}

fn json_of(names: BoxedStrategy<String>) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => any_number(),
        2 => any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(names.clone(), inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
    .boxed()
}

/// The runtime for checks that go through the server.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});
