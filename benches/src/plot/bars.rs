//! Bars, one below the other, each with its name and value.

use super::svg::{Anchor, COLOURS, Canvas, GRID};
use super::{TITLE_HEIGHT, WIDTH, short};

const ROW_HEIGHT: f64 = 24.0;
const BAR_HEIGHT: f64 = 16.0;
const NAMES_WIDTH: f64 = 330.0;
const VALUES_WIDTH: f64 = 90.0;

/// Draws values that are zero or more.
pub(crate) fn bars(title: &str, unit: &str, rows: &[(String, f64)]) -> String {
    let mut canvas = Canvas::new(WIDTH, TITLE_HEIGHT + ROW_HEIGHT * rows.len() as f64 + 8.0);
    canvas.text((10.0, 22.0), Anchor::Start, 15, &format!("{title} ({unit})"));
    let longest = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut y = TITLE_HEIGHT;
    for (name, value) in rows {
        let width = value / longest * (WIDTH - NAMES_WIDTH - VALUES_WIDTH);
        canvas.text((NAMES_WIDTH - 8.0, y + 13.0), Anchor::End, 12, name);
        canvas.bar((NAMES_WIDTH, y), (width, BAR_HEIGHT), COLOURS[0]);
        canvas.text((NAMES_WIDTH + width + 6.0, y + 13.0), Anchor::Start, 12, &short(*value));
        y += ROW_HEIGHT;
    }
    canvas.line((NAMES_WIDTH, TITLE_HEIGHT - 4.0), (NAMES_WIDTH, y), GRID);
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_picture() {
        let picture = bars("a < b", "MB/s", &[("x & <y>".to_owned(), 3.0), ("none".to_owned(), 0.0)]);
        assert!(picture.contains("x &amp; &lt;y&gt;") && picture.contains("a &lt; b"), "{picture}");
        for line in picture.lines().filter(|line| !line.starts_with("<svg") && *line != "</svg>") {
            assert!(line.ends_with("/>") || line.ends_with("</text>"), "left open: {line}");
        }
        assert!(!picture.contains("NaN"), "{picture}");
    }

    #[test]
    fn bars_of_nothing_have_no_length() {
        let picture = bars("none", "ms", &[("a".to_owned(), 0.0)]);
        assert!(picture.contains("width=\"0.0\""), "{picture}");
    }
}
