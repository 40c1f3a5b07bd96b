//! What is asked of Tidemill beside each peer, and whether it is so.

use super::peer::{Measure, PEERS, SUBJECT};
use crate::figure::Series;

/// How many times a peer's throughput Tidemill's has to be.
pub(super) struct Goal {
    measure: Measure,
    peer: &'static str,
    times: f64,
}

const fn goal(measure: Measure, peer: &'static str, times: f64) -> Goal {
    Goal { measure, peer, times }
}

/// Of Tidemill with every acknowledgement on the device, also beside peers that promise less.
pub(super) const GOALS: &[Goal] = &[
    goal(Measure::Produce, "Redis always", 7.0),
    goal(Measure::Produce, "Redis everysec", 3.5),
    goal(Measure::Produce, "NATS always", 70.0),
    goal(Measure::Produce, "NATS default", 3.5),
    goal(Measure::Consume, "Redis everysec", 2.0),
    goal(Measure::Consume, "NATS default", 6.0),
    goal(Measure::PutRecords, "ferrokinesis", 3.0),
    goal(Measure::PutRecords, "kinesalite", 15.0),
    goal(Measure::PutRecord, "ferrokinesis", 1.5),
    goal(Measure::GetRecords, "ferrokinesis", 3.0),
];

/// Tidemill over each peer, in each measure that both have.
pub(super) fn ratios(all: &[Series]) -> Vec<[String; 5]> {
    let mut rows = vec![["measured", "beside", "ratio", "goal", "verdict"].map(str::to_owned)];
    let median = |measure: Measure, name: &str| {
        let found = all.iter().find(|series| series.workload == measure.name() && series.target == name);
        found.map(|series| series.median(|run| run.records_per_s)).filter(|rate| *rate > 0.0)
    };
    for measure in Measure::ALL {
        let Some(own) = median(measure, SUBJECT) else { continue };
        for peer in PEERS.iter().filter(|peer| peer.name != SUBJECT) {
            let Some(theirs) = median(measure, peer.name) else { continue };
            let ratio = own / theirs;
            let goal = GOALS.iter().find(|goal| goal.measure == measure && goal.peer == peer.name);
            let verdict = match goal {
                None => "",
                Some(goal) if ratio >= goal.times => "pass",
                Some(_) => "falls short",
            };
            let times = goal.map_or_else(|| "-".to_owned(), |goal| format!("{:.1}", goal.times));
            rows.push([
                measure.name().to_owned(),
                peer.name.to_owned(),
                format!("{ratio:.2}"),
                times,
                verdict.to_owned(),
            ]);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Figure, series};

    #[test]
    fn each_goal_is_of_a_measure_that_the_peer_has() {
        for goal in GOALS {
            let peer = PEERS.iter().find(|peer| peer.name == goal.peer).unwrap();
            assert!(peer.measures.contains(&goal.measure), "{} of {}", goal.measure.name(), peer.name);
        }
    }

    #[test]
    fn a_ratio_below_its_goal_falls_short() {
        let figure = |target: &str, records_per_s| Figure {
            workload: "produce".to_owned(),
            target: target.to_owned(),
            records_per_s,
            ..Figure::default()
        };
        let figures = [figure(SUBJECT, 70.0), figure("Redis always", 10.0), figure("NATS always", 2.0)];
        let rows = ratios(&series(&figures));
        assert_eq!(rows[1], ["produce", "Redis always", "7.00", "7.0", "pass"].map(str::to_owned));
        assert_eq!(rows[2], ["produce", "NATS always", "35.00", "70.0", "falls short"].map(str::to_owned));
        assert_eq!(rows.len(), 3);
    }
}
