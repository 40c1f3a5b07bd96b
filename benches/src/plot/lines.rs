//! Curves over one axis, both axes from zero.

use super::svg::{Anchor, COLOURS, Canvas, GRID, INK};
use super::{TITLE_HEIGHT, WIDTH, short};

const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const BELOW: f64 = 60.0;
/// Parts of an axis.
const PARTS: u32 = 5;

/// A curve and its name.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws curves of values that are zero or more; `x` and `y` name the axes.
pub(crate) fn lines(title: &str, x: &str, y: &str, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let most_x = all().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let most_y = all().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TITLE_HEIGHT - BELOW);
    let place = |(x, y): (f64, f64)| (LEFT + x / most_x * width, HEIGHT - BELOW - y / most_y * height);
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.text((10.0, 22.0), Anchor::Start, 15, &format!("{title} ({y})"));
    for part in 0..=PARTS {
        let share = f64::from(part) / f64::from(PARTS);
        let (right, up) = place((most_x * share, most_y * share));
        canvas.line((LEFT, up), (LEFT + width, up), GRID);
        canvas.text((LEFT - 6.0, up + 4.0), Anchor::End, 11, &short(most_y * share));
        canvas.text((right, HEIGHT - BELOW + 16.0), Anchor::Middle, 11, &short(most_x * share));
    }
    canvas.line(place((0.0, 0.0)), place((most_x, 0.0)), INK);
    canvas.text((LEFT + width, HEIGHT - BELOW + 32.0), Anchor::End, 12, x);
    let mut name_at = LEFT;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<_> = curve.points.iter().copied().map(place).collect();
        canvas.path(&points, colour);
        canvas.bar((name_at, HEIGHT - 20.0), (14.0, 10.0), colour);
        canvas.text((name_at + 20.0, HEIGHT - 11.0), Anchor::Start, 12, &curve.name);
        name_at += 40.0 + 7.0 * curve.name.chars().count() as f64;
    }
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_values_reach_the_ends_of_the_axes() {
        let points = vec![(0.0, 0.0), (5.0, 2.0), (10.0, 1.0)];
        let picture = lines("t", "x", "y", &[Curve { name: "c".to_owned(), points }]);
        let path = picture.lines().find(|line| line.starts_with("<polyline")).unwrap();
        assert!(path.contains("\"70.0,320.0 455.0,34.0 840.0,177.0\""), "{path}");
    }

    #[test]
    fn a_curve_without_points_is_no_failure() {
        let picture = lines("t", "x", "y", &[Curve { name: "c".to_owned(), points: Vec::new() }]);
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
