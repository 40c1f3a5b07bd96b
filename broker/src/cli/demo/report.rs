//! The end of the demo: the consumers' figures beside those of the file, and how fast it went.

use super::figures::{Airport, Carrier, Figures};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Everything there is to tell.
pub(super) struct Report {
    pub(super) events: usize,
    pub(super) counted: usize,
    pub(super) redelivered: u64,
    pub(super) failures: usize,
    pub(super) expected: Figures,
    pub(super) computed: Figures,
    pub(super) put_time: Duration,
    pub(super) total_time: Duration,
    /// From the end of the first worker until the other one had counted an event of one of its shards.
    pub(super) takeover: Option<Duration>,
    /// Put to acknowledged, in microseconds.
    pub(super) acknowledged: Histogram<u64>,
    /// Put to delivered, in microseconds.
    pub(super) delivered: Histogram<u64>,
}

impl Report {
    /// Whether every figure is that of the file, and every event was acknowledged and counted once.
    pub(super) fn agrees(&self) -> bool {
        self.failures == 0 && self.counted == self.events && self.computed == self.expected
    }

    pub(super) fn json(&self) -> Value {
        let airport = |a: Airport| json!({ "flights": a.flights, "departures": a.departures, "mean_delay_minutes": a.mean_delay() });
        let carrier = |c: Carrier| json!({ "flights": c.flights, "departures": c.departures });
        json!({
            "agree": self.agrees(),
            "events": self.events,
            "counted": self.counted,
            "redelivered": self.redelivered,
            "put_failures": self.failures,
            "airports": self.computed.airports().map(|(n, a)| (n.to_owned(), airport(a))).collect::<serde_json::Map<_, _>>(),
            "carriers": self.computed.carriers().map(|(n, c)| (n.to_owned(), carrier(c))).collect::<serde_json::Map<_, _>>(),
            "expected": {
                "airports": self.expected.airports().map(|(n, a)| (n.to_owned(), airport(a))).collect::<serde_json::Map<_, _>>(),
                "carriers": self.expected.carriers().map(|(n, c)| (n.to_owned(), carrier(c))).collect::<serde_json::Map<_, _>>(),
            },
            "put_seconds": self.put_time.as_secs_f64(),
            "put_events_per_second": self.put_rate(),
            "total_seconds": self.total_time.as_secs_f64(),
            "takeover_seconds": self.takeover.map(|time| time.as_secs_f64()),
            "put_to_acknowledged_ms": latency_json(&self.acknowledged),
            "put_to_delivered_ms": latency_json(&self.delivered),
        })
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.write_figures(&mut text).and_then(|()| self.write_speed(&mut text)).expect("a string takes all");
        text
    }

    fn write_figures(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "airport    flights  departures   from file  mean delay   from file")?;
        for (name, expected) in self.expected.airports() {
            let computed = self.computed.airport(name);
            writeln!(
                out,
                "{name:<8}{:>10}{:>12}{:>12}{:>8.2} min{:>8.2} min  {}",
                computed.flights,
                computed.departures,
                expected.departures,
                computed.mean_delay(),
                expected.mean_delay(),
                mark(computed == expected)
            )?;
        }
        writeln!(out, "\ncarrier    flights  departures   from file")?;
        for (name, expected) in self.expected.carriers() {
            let computed = self.computed.carrier(name);
            writeln!(
                out,
                "{name:<8}{:>10}{:>12}{:>12}  {}",
                computed.flights,
                computed.departures,
                expected.departures,
                mark(computed == expected)
            )?;
        }
        Ok(())
    }

    fn write_speed(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{} events put in {:.1} s ({:.0}/s), {} counted once each, {} delivered again and recognised, {:.1} s in all",
            self.events,
            self.put_time.as_secs_f64(),
            self.put_rate(),
            self.counted,
            self.redelivered,
            self.total_time.as_secs_f64()
        )?;
        if let Some(takeover) = self.takeover {
            let seconds = takeover.as_secs_f64();
            writeln!(out, "one worker died halfway; the other went on with its shards {seconds:.1} s later")?;
        }
        writeln!(out, "put to acknowledged (durable)  {}", latency_text(&self.acknowledged))?;
        writeln!(out, "put to delivered               {}", latency_text(&self.delivered))?;
        if self.failures > 0 {
            writeln!(out, "{} events were not acknowledged", self.failures)?;
        }
        let verdict = if self.agrees() {
            "all figures agree with the file"
        } else {
            "the figures DO NOT agree with the file"
        };
        write!(out, "{verdict}")
    }

    fn put_rate(&self) -> f64 {
        self.events as f64 / self.put_time.as_secs_f64().max(0.001)
    }
}

fn mark(agrees: bool) -> &'static str {
    if agrees { "ok" } else { "DIFFERS" }
}

fn latency_ms(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1000.0
}

fn latency_json(latency: &Histogram<u64>) -> Value {
    json!({
        "p50": latency_ms(latency, 0.5),
        "p99": latency_ms(latency, 0.99),
        "max": latency_ms(latency, 1.0),
    })
}

fn latency_text(latency: &Histogram<u64>) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| latency_ms(latency, quantile));
    format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::super::tally::micros_histogram;
    use super::*;

    fn report(computed: Figures) -> Report {
        let mut expected = Figures::default();
        expected.count("JFK", "B6", None);
        Report {
            events: 1,
            counted: 1,
            redelivered: 0,
            failures: 0,
            expected,
            computed,
            put_time: Duration::from_secs(1),
            total_time: Duration::from_secs(2),
            takeover: None,
            acknowledged: micros_histogram(),
            delivered: micros_histogram(),
        }
    }

    #[test]
    fn a_single_figure_that_differs_fails_the_demo_and_is_marked() {
        let mut right = Figures::default();
        right.count("JFK", "B6", None);
        let right = report(right);
        assert!(right.agrees() && !right.table().contains("DIFFERS"));
        let mut wrong = Figures::default();
        wrong.count("JFK", "UA", None);
        let wrong = report(wrong);
        assert!(!wrong.agrees() && wrong.table().contains("DIFFERS"));
        assert_eq!(wrong.json()["agree"], false);
        assert!(!Report { failures: 1, ..right }.agrees());
    }
}
