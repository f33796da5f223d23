//! Counters as Prometheus reads them. Labels are bounded: words of this program, never what somebody sent.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::Mutex;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{exponential_buckets, Histogram};
use prometheus_client::registry::Registry;

use crate::lock;
use crate::source::Metric;

type Labels = [(&'static str, &'static str); 1];

pub struct Metrics {
    registry: Mutex<Registry>,
    pub sockets: Family<Labels, Gauge>,
    pub opened: Family<Labels, Counter>,
    pub sent: Family<Labels, Counter>,
    pub refused: Family<Labels, Counter>,
    pub closed: Family<Labels, Counter>,
    pub connections: Gauge,
    pub subscriptions: Gauge,
    pub buffered_bytes: Gauge,
    pub ring_bytes: Gauge,
    pub deliveries: Counter<u64, AtomicU64>,
    pub resyncs: Counter,
    pub replays: Counter,
    pub source_up: Gauge,
    pub source_errors: Counter,
    pub tls_reloads: Family<Labels, Counter>,
    pub delivery: Histogram,
    pub authorize: Histogram,
}

/// From 64 microseconds in powers of two to 134 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(64e-6, 2.0, 22))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("pushy_gateway")),
            sockets: Family::default(),
            opened: Family::default(),
            sent: Family::default(),
            refused: Family::default(),
            closed: Family::default(),
            connections: Gauge::default(),
            subscriptions: Gauge::default(),
            buffered_bytes: Gauge::default(),
            ring_bytes: Gauge::default(),
            deliveries: Counter::default(),
            resyncs: Counter::default(),
            replays: Counter::default(),
            source_up: Gauge::default(),
            source_errors: Counter::default(),
            tls_reloads: Family::default(),
            delivery: seconds(),
            authorize: seconds(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = lock(&self.registry);
        let registry = &mut *registry;
        registry.register(
            "sockets",
            "Streams and sockets that are open, by transport",
            self.sockets.clone(),
        );
        registry.register(
            "opened",
            "Streams and sockets that were opened, by transport",
            self.opened.clone(),
        );
        registry.register("sent", "Notices written, by transport", self.sent.clone());
        registry.register(
            "refused",
            "What was refused, by reason",
            self.refused.clone(),
        );
        registry.register(
            "closed",
            "Sockets that this gateway closed, by reason",
            self.closed.clone(),
        );
        registry.register(
            "connections",
            "Connections that are open, with those that have said nothing yet",
            self.connections.clone(),
        );
        registry.register(
            "subscriptions",
            "Subscriptions of all sockets",
            self.subscriptions.clone(),
        );
        registry.register(
            "buffered_bytes",
            "Bytes that wait to be written, of all sockets",
            self.buffered_bytes.clone(),
        );
        registry.register(
            "ring_bytes",
            "Bytes of recent notices that are kept for who comes back",
            self.ring_bytes.clone(),
        );
        registry.register(
            "deliveries",
            "Notices put into the buffers of sockets",
            self.deliveries.clone(),
        );
        registry.register(
            "resyncs",
            "Times that a subscription was told to look at the tables anew",
            self.resyncs.clone(),
        );
        registry.register(
            "replays",
            "Reads of the log for subscriptions that were behind the recent notices",
            self.replays.clone(),
        );
        registry.register(
            "source_up",
            "1 while the database answers",
            self.source_up.clone(),
        );
        registry.register(
            "source_errors",
            "Times that the database could not be reached or refused",
            self.source_errors.clone(),
        );
        registry.register(
            "tls_reloads",
            "Times that the certificate was read anew, by outcome",
            self.tls_reloads.clone(),
        );
        registry.register(
            "delivery_seconds",
            "From the notice's publication to its being written to a socket",
            self.delivery.clone(),
        );
        registry.register(
            "authorize_seconds",
            "How long the database takes to say who may read",
            self.authorize.clone(),
        );
    }

    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// With the rows that the database gave.
    pub fn text(&self, rows: &[Metric]) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &lock(&self.registry));
        let own = text.trim_end().strip_suffix("# EOF").unwrap_or(&text);
        let mut text = own.to_owned();
        let mut last = "";
        for row in rows.iter().filter(|row| is_name(&row.name)) {
            let (family, kind) = family(row);
            if family != last {
                let _ = writeln!(
                    text,
                    "# HELP {family} {}\n# TYPE {family} {kind}",
                    escaped(&row.help)
                );
                last = family;
            }
            let labels: Vec<String> = row
                .labels
                .iter()
                .filter(|(name, _)| is_name(name))
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let _ = writeln!(text, "{}{{{}}} {}", row.name, labels.join(","), row.value);
        }
        text.push_str("# EOF\n");
        text
    }
}

/// The name that the rows of one measure share, and what it is.
fn family(row: &Metric) -> (&str, &'static str) {
    let without = |suffix| row.name.strip_suffix(suffix).unwrap_or(&row.name);
    match row.kind.as_str() {
        "counter" => (without("_total"), "counter"),
        "histogram" => {
            let suffixes = ["_bucket", "_count", "_sum"];
            let named = suffixes.iter().find_map(|end| row.name.strip_suffix(end));
            (named.unwrap_or(&row.name), "histogram")
        }
        _ => (&row.name, "gauge"),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_database_stand_beside_the_own_counters() {
        let metrics = Metrics::default();
        metrics.refuse("origin");
        metrics.delivery.observe(0.0001);
        let row = Metric {
            name: "pushy_jobs_ready".into(),
            help: "Jobs that wait\nhere".into(),
            kind: "gauge".into(),
            labels: vec![
                ("queue".into(), "a\"b".into()),
                ("bad name".into(), "x".into()),
            ],
            value: 3.0,
        };
        let part = |name: &str, le: Option<&str>| Metric {
            name: format!("pushy_wait_seconds_{name}"),
            help: "Waits".into(),
            kind: "histogram".into(),
            labels: le.map(|le| ("le".into(), le.into())).into_iter().collect(),
            value: 2.0,
        };
        let histogram = [
            part("bucket", Some("0.000064")),
            part("bucket", Some("+Inf")),
            part("count", None),
        ];
        let mut rows = vec![row];
        rows.extend(histogram);
        let text = metrics.text(&rows);
        assert_eq!(
            text.matches("# TYPE pushy_wait_seconds histogram\n")
                .count(),
            1
        );
        assert!(
            text.contains(
                "pushy_wait_seconds_bucket{le=\"+Inf\"} 2\npushy_wait_seconds_count{} 2\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("pushy_gateway_refused_total{reason=\"origin\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("pushy_gateway_delivery_seconds_bucket{le=\"0.000128\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("# HELP pushy_jobs_ready Jobs that wait\\nhere\n"),
            "{text}"
        );
        assert!(
            text.contains("pushy_jobs_ready{queue=\"a\\\"b\"} 3\n"),
            "{text}"
        );
        assert!(
            text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1,
            "{text}"
        );
    }
}
