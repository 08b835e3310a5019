//! Latencies, as numbers and as the whole histogram.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// How long transactions took, milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How many transactions it is about: those with a receipt.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 90 % of them did.
    pub p90_ms: f64,
    /// 95 % of them did.
    pub p95_ms: f64,
    /// 99 % of them did.
    pub p99_ms: f64,
    /// 99.9 % of them did.
    pub p999_ms: f64,
    /// 99.99 % of them did.
    pub p9999_ms: f64,
    /// All of them did.
    pub max_ms: f64,
    /// All of it.
    pub histogram: HistogramText,
}

/// A histogram of microseconds as text: HdrHistogram's V2 encoding, deflated, in base 64, which
/// the tools of HdrHistogram read. Empty for no histogram.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HistogramText(String);

/// Why a text is no histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a histogram can't be read: {0}")]
pub struct BadHistogram(String);

impl Latency {
    /// What a histogram of microseconds says.
    #[must_use]
    pub fn new(micros: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(micros.value_at_quantile(quantile));
        Self {
            count: micros.len(),
            // To the microsecond: the histogram knows no better.
            mean_ms: micros.mean().round() / 1_000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: milliseconds(micros.max()),
            histogram: HistogramText::new(micros),
        }
    }
}

impl HistogramText {
    /// Writes a histogram.
    #[must_use]
    pub fn new(micros: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        match V2DeflateSerializer::new().serialize(micros, &mut bytes) {
            Ok(_) => Self(STANDARD.encode(bytes)),
            // Only what can't be written fails, and memory can be.
            Err(_) => Self::default(),
        }
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// [`BadHistogram`] if it is none.
    pub fn read(&self) -> Result<Option<Histogram<u64>>, BadHistogram> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let bytes = STANDARD.decode(&self.0).map_err(|error| BadHistogram(error.to_string()))?;
        let read = Deserializer::new().deserialize(&mut &bytes[..]);
        read.map(Some).map_err(|error| BadHistogram(error.to_string()))
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}
