//! Pictures of figures, as SVG: bars and lines, with nothing but shapes and text, so that they need neither fonts nor a
//! library. They show proportions; the numbers stand in the tables.

mod bars;
mod lines;
mod svg;

pub(crate) use bars::bars;
pub(crate) use lines::{Curve, lines};

/// Of a picture, in its own units.
const WIDTH: f64 = 860.0;
const TITLE_HEIGHT: f64 = 34.0;

/// As short as it can be told.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
