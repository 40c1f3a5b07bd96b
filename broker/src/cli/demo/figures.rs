//! What is computed from the flights: per airport departures and mean delay, per carrier departures.
//!
//! Sums are whole minutes, so that figures computed in any order agree exactly.

use std::collections::BTreeMap;

/// A flight that left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    pub(super) delay_minutes: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Airport {
    pub(super) flights: u64,
    pub(super) departures: u64,
    pub(super) delay_minutes: i64,
}

impl Airport {
    pub(super) fn mean_delay(&self) -> f64 {
        if self.departures == 0 { 0.0 } else { self.delay_minutes as f64 / self.departures as f64 }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) flights: u64,
    pub(super) departures: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Figures {
    airports: BTreeMap<String, Airport>,
    carriers: BTreeMap<String, Carrier>,
}

impl Figures {
    pub(super) fn count(&mut self, origin: &str, carrier: &str, departure: Option<Departure>) {
        let airport = self.airports.entry(origin.to_owned()).or_default();
        let carrier = self.carriers.entry(carrier.to_owned()).or_default();
        airport.flights += 1;
        carrier.flights += 1;
        if let Some(departure) = departure {
            airport.departures += 1;
            airport.delay_minutes += departure.delay_minutes;
            carrier.departures += 1;
        }
    }
    pub(super) fn airports(&self) -> impl Iterator<Item = (&str, Airport)> {
        self.airports.iter().map(|(name, airport)| (name.as_str(), *airport))
    }
    pub(super) fn carriers(&self) -> impl Iterator<Item = (&str, Carrier)> {
        self.carriers.iter().map(|(name, carrier)| (name.as_str(), *carrier))
    }
    pub(super) fn airport(&self, name: &str) -> Airport {
        self.airports.get(name).copied().unwrap_or_default()
    }
    pub(super) fn carrier(&self, name: &str) -> Carrier {
        self.carriers.get(name).copied().unwrap_or_default()
    }
}
