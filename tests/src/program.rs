//! The `muster` program as processes of their own: run to its end, or started, killed and started again.

use crate::wait::{SOON, eventually};
use anyhow::Context as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A program under test, with a home of its own so that nobody's kubeconfig is found.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    home: Arc<tempfile::TempDir>,
}

impl Program {
    /// The program at `path`.
    pub fn new(path: &str) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.into(),
            home: Arc::new(tempfile::TempDir::with_prefix("muster-test-home-")?),
        })
    }

    /// A folder to write files to, that goes with the program.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The same program, whose files may not grow beyond 4 MiB (8192 blocks of 512 bytes): the system's answer is an error
    /// then, as a full disk's is.
    pub fn with_little_room(&self) -> anyhow::Result<Self> {
        let script = self.home().join("full.sh");
        let program = self.path.display();
        std::fs::write(
            &script,
            format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f 8192\nexec '{program}' \"$@\"\n"),
        )?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self {
            path: script,
            home: self.home.clone(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(args)
            .current_dir(self.home())
            .env("HOME", self.home())
            .stdin(Stdio::null());
        for variable in [
            "KUBECONFIG",
            "RUST_LOG",
            "KUBERNETES_SERVICE_HOST",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs to the end. It must end by itself soon.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Run> {
        let mut process = self.spawn(args)?;
        let status = process.until_ended(Duration::from_secs(120)).await?;
        let code = status.with_context(|| format!("muster {} was killed", args.join(" ")))?;
        Ok(Run {
            code,
            stdout: process.stdout.finish(),
            stderr: process.stderr.finish(),
        })
    }

    /// Starts a process. It is killed when the value goes.
    pub fn spawn(&self, args: &[&str]) -> anyhow::Result<Process> {
        self.spawn_in(args, &[])
    }

    /// The same with more in its environment.
    pub fn spawn_in(&self, args: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Process> {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = Text::of(child.stdout.take());
        let stderr = Text::of(child.stderr.take());
        Ok(Process {
            args: args.join(" "),
            child,
            stdout,
            stderr,
        })
    }

    /// Any other program, to its end.
    pub async fn other(program: &Path, args: &[&str]) -> anyhow::Result<Run> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null());
        let Output {
            status,
            stdout,
            stderr,
        } = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Run {
            code: status.code().unwrap_or(-1),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// What a process writes, gathered by a thread as it comes.
#[derive(Debug)]
struct Text {
    lines: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Text {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let lines = Arc::new(Mutex::new(String::new()));
        let into = lines.clone();
        let reader = pipe.map(|pipe| {
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while matches!(pipe.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        });
        Self { lines, reader }
    }

    fn now(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All of it, once the process has ended.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.now()
    }
}

/// A process that runs.
#[derive(Debug)]
pub struct Process {
    args: String,
    child: Child,
    stdout: Text,
    stderr: Text,
}

impl Process {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output until now.
    pub fn stdout(&self) -> String {
        self.stdout.now()
    }

    /// What it wrote to its standard error until now.
    pub fn stderr(&self) -> String {
        self.stderr.now()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM or SIGINT), by its id.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args(["-s", signal, &self.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "kill -s {signal} {} failed", self.id());
        Ok(())
    }

    /// Waits for its end; its exit code, `None` when a signal ended it.
    pub async fn until_ended(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        let what = format!("muster {} ends", self.args);
        let child = &mut self.child;
        let mut look = || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let ended = eventually(within, &what, || std::future::ready(look())).await;
        if ended.is_ok() {
            // What it wrote last may still be on its way.
            self.stdout.finish();
            self.stderr.finish();
        }
        ended
            .map(|status| status.code())
            .with_context(|| format!("it wrote: {}{}", self.stdout(), self.stderr()))
    }

    /// Waits for a file that the process writes when it is ready.
    pub async fn until_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let what = format!("muster {} writes {}", self.args, path.display());
        let child = &mut self.child;
        let mut look = || match child.try_wait() {
            Ok(None) if path.exists() => Ok(()),
            Ok(None) => Err("there is no such file yet".to_owned()),
            Ok(Some(status)) => Err(format!("it ended: {status}")),
            Err(error) => Err(error.to_string()),
        };
        let there = eventually(SOON, &what, || std::future::ready(look())).await;
        there.with_context(|| format!("it wrote: {}{}", self.stdout(), self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
