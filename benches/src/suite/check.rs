//! What is asked of a figure, and whether it is met. Pure.

/// A value, or why it is not there.
pub(super) type Found<T = f64> = Result<T, String>;

/// Which side of the bound is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Nothing is asked: the figure is compared elsewhere.
    None,
}

/// One line of the table of targets.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) row: &'static str,
    what: String,
    unit: &'static str,
    measured: Found<(f64, Bound)>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    FallsShort,
    Figure,
    NotMeasured(String),
}

impl Check {
    pub(super) fn at_least(what: impl Into<String>, unit: &'static str, found: Found, least: f64) -> Self {
        Self::new(what, unit, found.map(|value| (value, Bound::AtLeast(least))))
    }
    /// The bound may itself be of something measured.
    pub(super) fn at_most(what: impl Into<String>, unit: &'static str, found: Found, most: Found) -> Self {
        Self::new(what, unit, found.and_then(|value| Ok((value, Bound::AtMost(most?)))))
    }
    pub(super) fn figure(what: impl Into<String>, unit: &'static str, found: Found) -> Self {
        Self::new(what, unit, found.map(|value| (value, Bound::None)))
    }
    fn new(what: impl Into<String>, unit: &'static str, measured: Found<(f64, Bound)>) -> Self {
        Self { row: "", what: what.into(), unit, measured }
    }
    pub(super) fn of_row(self, row: &'static str) -> Self {
        Self { row, ..self }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let met = match &self.measured {
            Err(why) => return Verdict::NotMeasured(why.clone()),
            Ok((_, Bound::None)) => return Verdict::Figure,
            Ok((value, Bound::AtLeast(least))) => value >= least,
            Ok((value, Bound::AtMost(most))) => value <= most,
        };
        if met { Verdict::Pass } else { Verdict::FallsShort }
    }

    /// Row, what, measured, target, verdict.
    pub(super) fn cells(&self) -> [String; 5] {
        let verdict = match self.verdict() {
            Verdict::Pass => "pass".to_owned(),
            Verdict::FallsShort => "**falls short**".to_owned(),
            Verdict::Figure => "-".to_owned(),
            Verdict::NotMeasured(why) => format!("not measured: {}", why.replace(['|', '\n'], " ")),
        };
        let target = |bound: &Bound| match bound {
            Bound::AtLeast(least) => format!("≥ {}", shown(*least)),
            Bound::AtMost(most) => format!("≤ {}", shown(*most)),
            Bound::None => "-".to_owned(),
        };
        let (measured, target) = match &self.measured {
            Err(_) => ("-".to_owned(), "-".to_owned()),
            Ok((value, bound)) => {
                (format!("{} {}", shown(*value), self.unit).trim_end().to_owned(), target(bound))
            }
        };
        [self.row.to_owned(), self.what.clone(), measured, target, verdict]
    }
}

/// With as many digits as say something.
pub(super) fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 20.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// One figure over another of the same run.
pub(super) fn ratio(of: Found, over: Found) -> Found {
    match (of?, over?) {
        (_, over) if over <= 0.0 => Err("what it is compared with came to nothing".to_owned()),
        (of, over) => Ok(of / over),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_by_what_equals_it() {
        assert_eq!(Check::at_least("a", "×", Ok(0.45), 0.45).verdict(), Verdict::Pass);
        assert_eq!(Check::at_least("a", "×", Ok(0.449), 0.45).verdict(), Verdict::FallsShort);
        assert_eq!(Check::at_most("a", "ms", Ok(2.0), Ok(2.0)).verdict(), Verdict::Pass);
        assert_eq!(Check::at_most("a", "ms", Ok(2.1), Ok(2.0)).verdict(), Verdict::FallsShort);
    }

    #[test]
    fn what_lacks_its_figure_or_its_bound_is_neither_met_nor_missed() {
        let why = || Err("no such workload".to_owned());
        for check in [Check::at_most("a", "ms", why(), Ok(2.0)), Check::at_most("a", "ms", Ok(1.0), why())] {
            assert_eq!(check.verdict(), Verdict::NotMeasured("no such workload".to_owned()));
            assert_eq!(check.cells()[4], "not measured: no such workload");
        }
        assert!(ratio(Ok(1.0), Ok(0.0)).is_err());
        assert_eq!(ratio(Ok(1.0), Ok(2.0)), Ok(0.5));
    }
}
