//! The events of the demo: a file of real flights, carried inside the program, and the figures computed directly from it.

use super::figures::{Departure, Figures};
use crate::error::{Error, Result};
use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use std::io::Read;

/// 27,004 flights, January 2013, CC0; see `broker/data/README.md`.
const FILE: &[u8] = include_bytes!("../../../data/flights-2013-01.csv.gz");
/// How the file says "not known".
const UNKNOWN: &str = "NA";

/// The rows of the file.
pub(super) struct Flights {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// One event on its way into the stream.
pub(super) struct Event {
    /// The tail number, or carrier and flight where that is not known.
    pub(super) key: String,
    /// The row as JSON, with its number in the file as `event`.
    pub(super) json: String,
}

impl Flights {
    pub(super) fn load() -> Result<Self> {
        let mut text = String::new();
        GzDecoder::new(FILE)
            .read_to_string(&mut text)
            .map_err(|e| Error::because("the flights inside this program are damaged", e))?;
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let columns = lines.next().unwrap_or_default();
        let rows: Vec<_> = lines.collect();
        match rows.iter().position(|row| row.len() != columns.len()) {
            Some(row) => {
                Err(Error::failed(format!("row {row} of the flights has another number of columns")))
            }
            None => Ok(Self { columns, rows }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let (carrier, flight, tail) = (self.column("carrier"), self.column("flight"), self.column("tailnum"));
        self.rows.iter().enumerate().map(move |(number, row)| Event {
            key: match row[tail].as_str() {
                UNKNOWN => format!("{}{}", row[carrier], row[flight]),
                tail => tail.to_owned(),
            },
            json: self.json(number, row),
        })
    }

    fn json(&self, number: usize, row: &[String]) -> String {
        let mut event = Map::from_iter([("event".to_owned(), Value::from(number))]);
        for (column, value) in self.columns.iter().zip(row) {
            let value = match value.as_str() {
                UNKNOWN => Value::Null,
                text => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
            };
            event.insert(column.clone(), value);
        }
        Value::Object(event).to_string()
    }

    /// The figures straight from the rows: what the consumers' must agree with.
    pub(super) fn figures(&self) -> Result<Figures> {
        let [carrier, origin, time, delay] =
            ["carrier", "origin", "dep_time", "dep_delay"].map(|c| self.column(c));
        let mut figures = Figures::default();
        for row in &self.rows {
            let departure = match row[time].as_str() {
                UNKNOWN => None,
                _ => {
                    let minutes = row[delay].parse().map_err(|_| {
                        Error::failed(format!("a flight departed with a delay of {:?} minutes", row[delay]))
                    })?;
                    Some(Departure { delay_minutes: minutes })
                }
            };
            figures.count(&row[origin], &row[carrier], departure);
        }
        Ok(figures)
    }

    fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|column| column == name).expect("the file has the columns named here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_flights_that_its_readme_promises() {
        let flights = Flights::load().unwrap();
        assert_eq!(flights.len(), 27_004);
        let figures = flights.figures().unwrap();
        let carriers: Vec<_> = figures.carriers().map(|(name, carrier)| (name, carrier.flights)).collect();
        assert_eq!(carriers.len(), 16);
        for known in [("UA", 4637), ("B6", 4427), ("EV", 4171), ("OO", 1), ("HA", 31), ("9E", 1573)] {
            assert!(carriers.contains(&known), "{known:?} not in {carriers:?}");
        }
        // 521 flights were cancelled: they never departed
        assert_eq!(figures.airports().map(|(_, airport)| airport.departures).sum::<u64>(), 27_004 - 521);
    }

    #[test]
    fn events_are_json_with_a_key_even_where_the_tail_number_is_unknown() {
        let flights = Flights::load().unwrap();
        let mut fallbacks = 0;
        for (number, event) in flights.events().enumerate() {
            let json: Value = serde_json::from_str(&event.json).unwrap();
            assert_eq!(json["event"], number);
            assert!(json["year"].is_i64() && json["origin"].is_string());
            if json["tailnum"].is_null() {
                fallbacks += 1;
                assert_eq!(event.key, format!("{}{}", json["carrier"].as_str().unwrap(), json["flight"]));
            } else {
                assert_eq!(json["tailnum"], event.key);
            }
        }
        assert_eq!(fallbacks, 155);
    }
}
