//! Evolutions with invented accuracies: nothing is trained here.

use tallow_trainer::Config;
use tallow_trainer::config::InputConfig;

use super::*;
use crate::journal::Measured;

fn search(settings: Settings) -> Search {
    let config = Config {
        model: "efficientnet_b0".into(),
        input: InputConfig { size: Some(32), ..InputConfig::default() },
        network: NetworkConfig { widen: 0.5, ..NetworkConfig::default() },
        ..Config::default()
    };
    Search::new(Basis::open(config).unwrap(), settings).unwrap()
}

/// An accuracy that likes large kernels and gates.
fn invented(candidate: &Candidate) -> Measured {
    let stages = &candidate.config.network.stages;
    let good: f64 = stages.iter().map(|s| s.kernel as f64 + 4.0 * s.se.unwrap_or(0.0)).sum();
    Measured {
        candidate: candidate.index,
        parameters: candidate.parameters,
        macs: candidate.macs,
        top1: good / 64.0,
        epoch: 1,
        seconds: 1.0,
        diverged: None,
    }
}

/// Runs a search with `jobs` at once, where the last begun is the first done.
fn run(settings: Settings, jobs: usize) -> (Search, Results) {
    let mut search = search(settings);
    let (mut results, mut running, mut next) = (Results::new(), vec![], 0);
    loop {
        while next < search.len() && running.len() < jobs {
            let Some(candidate) = search.candidate(next, &results).unwrap() else { break };
            running.push(candidate);
            next += 1;
        }
        let Some(candidate) = running.pop() else { return (search, results) };
        results.insert(candidate.index, invented(&candidate));
    }
}

const SMALL: Settings = Settings {
    candidates: 40,
    population: 8,
    sample: 3,
    lag: 4,
    target: None,
    exponent: crate::objective::EXPONENT,
    seed: 3,
};

#[test]
fn the_search_is_the_same_for_any_number_of_jobs() {
    let (one, results) = run(SMALL, 1);
    assert_eq!(results.len(), 40);
    for jobs in [2, 3, 4, 9] {
        let (other, found) = run(SMALL, jobs);
        assert_eq!(other.report(&found), one.report(&results), "{jobs} jobs");
    }
    let (other, found) = run(Settings { seed: 4, ..SMALL }, 1);
    assert_ne!(other.report(&found), one.report(&results));
}

#[test]
fn a_search_goes_on_from_its_results_alone() {
    let (whole, results) = run(SMALL, 2);
    let mut again = search(SMALL);
    let first: Results = results.clone().into_iter().filter(|(index, _)| *index < 17).collect();
    // As far as these results decide, and no further.
    let reached = (0..40).take_while(|&i| again.candidate(i, &first).unwrap().is_some()).count();
    assert_eq!(reached, 17 + SMALL.lag);
    assert!(again.candidate(39, &results).unwrap().is_some());
    assert_eq!(again.report(&results), whole.report(&results));
}

#[test]
fn evolution_improves_on_its_first_population() {
    let (search, results) = run(Settings { candidates: 150, ..SMALL }, 1);
    let report = search.report(&results);
    let objective = |row: &Row| row.objective.unwrap();
    let first = report.rows[..8].iter().map(objective).fold(0.0, f64::max);
    let best = report.best.as_ref().unwrap();
    assert!(objective(best) > 1.1 * first, "{} after {first}", objective(best));
    assert!(best.parent.is_some() && best.change.starts_with("stage "), "{best:?}");
    assert_eq!(report.best_config.unwrap().network.stages, report.best_table.unwrap().stages);
}

#[test]
fn parents_are_alive_and_no_network_is_trained_twice() {
    let (search, _) = run(SMALL, 1);
    for (index, born) in search.born.iter().enumerate().skip(8) {
        let parent = born.parent.unwrap();
        // The population of 8 as it was 4 candidates earlier.
        let known = (index + 1 - 4).max(8);
        assert!((known - 8..known).contains(&parent), "{index} from {parent}");
    }
    let tables: Vec<_> =
        search.born.iter().map(|born| search.basis.graph(&born.candidate.config).unwrap()).collect();
    for (i, table) in tables.iter().enumerate() {
        assert!(tables[..i].iter().all(|other| other.nodes() != table.nodes()), "{i}");
    }
}

#[test]
fn small_images_keep_a_map_and_the_target_is_the_starts() {
    let search = search(SMALL);
    let table = search.space.table(&search.space.start());
    assert_eq!(table.total_stride(), 8);
    assert_eq!(search.target(), search.born[0].candidate.macs as f64);
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let config = Config { model: "efficientnet_b0".into(), ..Config::default() };
    let basis = Basis::open(config).unwrap();
    for (settings, expected) in [
        (Settings { sample: 9, ..SMALL }, "--sample must lie in 1 to 8, is 9"),
        (Settings { population: 41, ..SMALL }, "--population must lie in 1 to 40, is 41"),
        (Settings { lag: 0, ..SMALL }, "--lag must lie in 1 to 8, is 0"),
        (Settings { target: Some(0.0), ..SMALL }, "--target must be a number of MACs above 0, is 0"),
        (Settings { exponent: 0.07, ..SMALL }, "--exponent must lie in -1 to 0, is 0.07"),
    ] {
        assert_eq!(Search::new(basis.clone(), settings).unwrap_err().to_string(), expected);
    }
    let resnet = Basis::open(Config { model: "resnet20".into(), ..Config::default() }).unwrap();
    assert!(Search::new(resnet, SMALL).unwrap_err().to_string().contains("name an efficientnet"));
    let weights = Config { weights: Some("w.safetensors".into()), ..Config::default() };
    assert!(Basis::open(weights).unwrap_err().to_string().starts_with("--weights fit one network"));
}
