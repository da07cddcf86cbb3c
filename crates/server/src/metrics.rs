//! Counters, in the text format that Prometheus reads.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets of searches, in milliseconds.
const BUCKETS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Requests by the first digit of their status.
    answers: [AtomicU64; 6],
    searches: [AtomicU64; BUCKETS.len() + 1],
    search_micros: AtomicU64,
    /// Connections open now.
    pub(crate) connections: AtomicU64,
    /// Connections refused because too many were open.
    pub(crate) refused: AtomicU64,
    /// Questions answered, stopped and failed.
    pub(crate) asks: AtomicU64,
    /// Questions whose reader went away or asked to stop.
    pub(crate) asks_stopped: AtomicU64,
    /// Pieces of answers.
    pub(crate) tokens: AtomicU64,
    /// Pages written to the index.
    pub(crate) pages: AtomicU64,
    /// Index jobs that ended well.
    pub(crate) jobs: AtomicU64,
    /// Index jobs that did not.
    pub(crate) jobs_failed: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let class = usize::from(status / 100).min(self.answers.len() - 1);
        self.answers[class].fetch_add(1, Relaxed);
    }

    /// Counts a search.
    pub(crate) fn searched(&self, took: Duration) {
        let milliseconds = took.as_millis() as u64;
        let bucket = BUCKETS.iter().position(|bound| milliseconds < *bound);
        self.searches[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Relaxed);
        self.search_micros
            .fetch_add(took.as_micros() as u64, Relaxed);
    }

    /// All of it as text; `gauges` are read by the caller now.
    pub(crate) fn text(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut out = String::new();
        let mut simple = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(
                out,
                "# HELP colibri_{name} {help}\n# TYPE colibri_{name} {kind}\ncolibri_{name} {value}"
            );
        };
        let counters = [
            ("asks_total", "Questions that were begun.", &self.asks),
            (
                "asks_stopped_total",
                "Questions stopped before their end.",
                &self.asks_stopped,
            ),
            (
                "answer_pieces_total",
                "Pieces of text of answers.",
                &self.tokens,
            ),
            (
                "pages_indexed_total",
                "Pages written to the index.",
                &self.pages,
            ),
            ("jobs_total", "Index jobs that ended well.", &self.jobs),
            (
                "jobs_failed_total",
                "Index jobs that failed or were stopped.",
                &self.jobs_failed,
            ),
            (
                "connections_refused_total",
                "Connections refused because too many were open.",
                &self.refused,
            ),
        ];
        for (name, help, value) in counters {
            simple(name, "counter", help, value.load(Relaxed));
        }
        simple(
            "connections",
            "gauge",
            "Connections open now.",
            self.connections.load(Relaxed),
        );
        for (name, help, value) in gauges {
            simple(name, "gauge", help, *value);
        }
        out.push_str("# HELP colibri_responses_total Answers by class of status.\n# TYPE colibri_responses_total counter\n");
        for (class, count) in self.answers.iter().enumerate().skip(2) {
            let count = count.load(Relaxed);
            let _ = writeln!(
                out,
                "colibri_responses_total{{status=\"{class}xx\"}} {count}"
            );
        }
        out.push_str("# HELP colibri_search_seconds How long searches took.\n# TYPE colibri_search_seconds histogram\n");
        let mut sum = 0;
        for (at, bucket) in self.searches.iter().enumerate() {
            sum += bucket.load(Relaxed);
            let bound = BUCKETS.get(at).map_or("+Inf".to_owned(), |bound| {
                (*bound as f64 / 1000.0).to_string()
            });
            let _ = writeln!(out, "colibri_search_seconds_bucket{{le=\"{bound}\"}} {sum}");
        }
        let seconds = self.search_micros.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(
            out,
            "colibri_search_seconds_sum {seconds}\ncolibri_search_seconds_count {sum}"
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.searched(Duration::from_micros(400));
        metrics.searched(Duration::from_millis(30));
        metrics.searched(Duration::from_mins(1));
        metrics.answered(200);
        metrics.answered(404);
        let text = metrics.text(&[("documents", "Documents.", 7)]);
        for line in [
            "colibri_search_seconds_bucket{le=\"0.001\"} 1",
            "colibri_search_seconds_bucket{le=\"0.05\"} 2",
            "colibri_search_seconds_bucket{le=\"+Inf\"} 3",
            "colibri_search_seconds_count 3",
            "colibri_responses_total{status=\"2xx\"} 1",
            "colibri_responses_total{status=\"4xx\"} 1",
            "colibri_documents 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
