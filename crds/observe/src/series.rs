//! Gauges that are read when they are asked for.

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

/// A gauge: its series by their labels, with their values.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    /// Its name.
    pub name: &'static str,
    /// What it tells, without a full stop.
    pub help: &'static str,
    /// Labels and values.
    pub series: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Gauge {
    /// A gauge with these series.
    pub fn new(
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) -> Self {
        Self {
            name,
            help,
            series: series.into_iter().collect(),
        }
    }

    /// A gauge of one value.
    pub fn alone(name: &'static str, help: &'static str, value: f64) -> Self {
        Self::new(name, help, [(Vec::new(), value)])
    }

    /// The value under these labels.
    pub fn value(&self, labels: &[(&str, &str)]) -> Option<f64> {
        let same = |found: &[(&'static str, String)]| {
            found.len() == labels.len()
                && found
                    .iter()
                    .zip(labels)
                    .all(|((k, v), (key, value))| k == key && v == value)
        };
        let series = self.series.iter().find(|(found, _)| same(found));
        series.map(|(_, value)| *value)
    }
}

/// Tells of gauges; of those without series, nothing.
pub fn encode(encoder: &mut DescriptorEncoder<'_>, gauges: &[Gauge]) -> Result<(), std::fmt::Error> {
    for gauge in gauges.iter().filter(|gauge| !gauge.series.is_empty()) {
        let help = format!("{}.", gauge.help);
        let mut family = encoder.encode_descriptor(gauge.name, &help, None, MetricType::Gauge)?;
        for (labels, value) in &gauge.series {
            if labels.is_empty() {
                family.encode_gauge(value)?;
            } else {
                family.encode_family(labels)?.encode_gauge(value)?;
            }
        }
    }
    Ok(())
}

/// A number of things as a gauge has it.
pub fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}
