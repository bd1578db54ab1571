//! The `muster` program as processes, and what they cost.

use anyhow::Context as _;
use muster_tests::Program;
use muster_tests::program::Process;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// All of it.
    pub resident: u64,
    /// Its own pages; the rest is pages of the program's file, which others share and the system may drop.
    pub own: u64,
}

impl Memory {
    /// As the kernel tells it now.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let text = line.with_context(|| format!("no {name} of process {pid}"))?;
            let number: u64 = text.trim().trim_end_matches(" kB").parse()?;
            Ok(number * 1024)
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            own: field("RssAnon:")?,
        })
    }

    /// For people.
    pub fn show(&self) -> String {
        format!("{} ({} own)", mb(self.resident), mb(self.own))
    }
}

/// How long a process has computed, in steps of 10 ms: unlike the time that passed, a busy machine makes little of it longer.
pub fn computed(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may have blanks in it.
    let (_, fields) = stat.rsplit_once(')').context("no name in the process's stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Megabytes for people.
#[allow(clippy::cast_precision_loss)] // two digits are shown
pub fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The program under test.
pub fn program() -> anyhow::Result<Program> {
    let path = std::env::var("MUSTER_BENCH_PROGRAM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_muster-under-test").into());
    Program::new(&path)
}

/// An API server as a process of its own.
pub struct Server {
    /// The process.
    pub process: Process,
    /// An administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// From its start until it said that it is ready.
    pub started_in: Duration,
}

impl Server {
    /// Starts `muster apiserver` on a data folder, or in memory, and waits until it is ready.
    pub async fn start(program: &Program, data: Option<&Path>) -> anyhow::Result<Self> {
        let data = data.map(|d| d.display().to_string());
        let mut args = vec!["apiserver", "--bind=127.0.0.1:0"];
        match &data {
            Some(data) => args.extend(["--data-dir", data.as_str()]),
            None => args.push("--in-memory"),
        }
        Self::launch(program, &args).await
    }

    /// Starts it with these arguments.
    pub async fn launch(program: &Program, args: &[&str]) -> anyhow::Result<Self> {
        let kubeconfig = program
            .home()
            .join(format!("{:08x}.kubeconfig", rand::random::<u32>()));
        let shown = kubeconfig.display().to_string();
        let args = [args, &["--write-kubeconfig", &shown]].concat();
        let start = Instant::now();
        let mut process = program.spawn(&args)?;
        // The file appears when the server answers; looked for more often than tests do, because it is timed.
        while !kubeconfig.exists() {
            if start.elapsed() > Duration::from_secs(60) {
                process.kill()?;
                anyhow::bail!("the server is not ready within 60 s: {}", process.stderr());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let client = super::client::Target::from_kubeconfig(&kubeconfig)?;
        let mut connection = client.connect().await?;
        let ready = connection.get("/readyz").await?;
        anyhow::ensure!(&*ready == b"ok", "/readyz: {ready:?}");
        Ok(Self {
            process,
            kubeconfig,
            started_in: start.elapsed(),
        })
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.process.id())
    }

    /// Where its clients find it.
    pub fn target(&self) -> anyhow::Result<super::client::Target> {
        super::client::Target::from_kubeconfig(&self.kubeconfig)
    }
}
