//! What the benches share: processes and their memory, a light client that costs the machine little, and tables.
#![allow(dead_code)] // each bench uses its part
#![allow(clippy::print_stdout)] // tables are what benches are for

pub mod client;
pub mod process;
pub mod requests;

use std::time::{Duration, Instant};

/// A number from the environment, so that a run can be made longer or shorter.
pub fn size(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Which parts the command line asks for: all when it names none. Cargo adds flags of its own.
pub fn wanted(part: &str) -> bool {
    let mut names = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .peekable();
    names.peek().is_none() || names.any(|name| name == part)
}

/// Whether the command line asks for a part by name: for what takes too long to be run otherwise.
pub fn asked(part: &str) -> bool {
    std::env::args().skip(1).any(|a| a == part)
}

/// Rows of figures beside what they should be. A row is printed as soon as it is known.
pub struct Table {
    width: usize,
}

impl Table {
    /// Begins a table.
    pub fn new(title: &str) -> Self {
        let width = 58;
        println!("\n{title}");
        println!("| {:<width$} | {:>22} | {:>14} |", "what", "measured", "target");
        println!("|-{:-<width$}-|{:->24}|{:->16}|", "", "", "");
        Self { width }
    }

    /// What explains the row above.
    pub fn note(&self, text: &str) {
        let width = self.width;
        println!("|   {text:<width$}");
    }

    /// One row.
    pub fn row(&self, what: &str, measured: &str, target: &str) {
        let width = self.width;
        println!("| {what:<width$} | {measured:>22} | {target:>14} |");
    }
}

/// Durations sorted, with the quantiles people ask for.
pub struct Times(Vec<Duration>);

impl Times {
    /// Of these.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that this share of all is not above.
    pub fn at(&self, per_cent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((self.0.len() * per_cent / 100).min(last))
            .copied()
            .unwrap_or_default()
    }

    /// `p50 / p99`.
    pub fn show(&self) -> String {
        format!("{} / {}", ms(self.at(50)), ms(self.at(99)))
    }
}

/// Milliseconds for people.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// How long a future takes, with what it gives.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let value = work.await;
    (value, start.elapsed())
}

/// What one small synced write costs in a folder: the floor of every durable write there.
pub fn fsync(dir: &std::path::Path) -> std::io::Result<Duration> {
    use std::io::Write as _;
    let path = dir.join("fsync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(Times::new(times).at(50))
}
