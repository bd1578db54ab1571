//! What every process tells of itself, by Prometheus' usual names; on Linux, from `/proc`.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// What the kernel calls USER_HZ: how many ticks a second it tells times in.
const TICKS: f64 = 100.0;

/// Reads it at each scrape.
#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Default for Process {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: since.as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = [
            (
                "process_start_time_seconds",
                "When the process started, in seconds since 1970",
                Some(self.started),
            ),
            (
                "process_resident_memory_bytes",
                "Memory of the process that is in RAM",
                read("/proc/self/status").and_then(|text| resident(&text)),
            ),
            ("process_open_fds", "Open files and connections", open_files()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
        }
        if let Some(seconds) = read("/proc/self/stat").and_then(|text| processor(&text)) {
            let counter = ConstCounter::new(seconds);
            let help = "Time of processors that the process took";
            // The format adds `_total`.
            let encoder =
                encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?;
            counter.encode(encoder)?;
        }
        Ok(())
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// User and system time: the 14th and 15th field. The second is the program's name, which may hold anything.
fn processor(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(
            resident("VmPeak:\t  9 kB\nVmRSS:\t  2048 kB\n"),
            Some(2_097_152.0)
        );
        assert_eq!(resident(""), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1";
        assert_eq!(processor(stat), Some(3.0));
        assert_eq!(processor("7 (a"), None);
    }
}
