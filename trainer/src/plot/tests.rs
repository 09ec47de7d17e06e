use tallow_builder::Rng;

use super::*;
use crate::metrics::ConfusionMatrix;
use crate::metrics::csv::{Row, Validation};

fn row(epoch: u64, epochs: u64) -> Row {
    let t = epoch as f64 / epochs as f64;
    let wobble = (epoch as f64 * 1.7).sin();
    Row {
        epoch,
        step: epoch * 100,
        learning_rate: 0.1 * (1.0 + (t * std::f64::consts::PI).cos()) / 2.0,
        train_loss: 2.2 * (-4.5 * t).exp() + 0.02,
        train_top1: 1.0 - 0.8 * (-5.0 * t).exp(),
        validation: Some(Validation {
            loss: 2.1 * (-4.0 * t).exp() + 0.08 + 0.02 * wobble,
            top1: 0.975 - 0.75 * (-5.5 * t).exp() + 0.006 * wobble,
            top5: 0.995,
        }),
        images_per_second: 340.0 + 12.0 * wobble,
        seconds: 4.2,
    }
}

fn rows(epochs: u64) -> Vec<Row> {
    (1..=epochs).map(|epoch| row(epoch, epochs)).collect()
}

fn matrix(classes: usize, samples: usize) -> ConfusionMatrix {
    let (mut matrix, mut rng) = (ConfusionMatrix::new(classes), Rng::new(8));
    for _ in 0..samples {
        let truth = rng.below(classes);
        let off = if rng.chance(0.5) { (truth + 1) % classes } else { rng.below(classes) };
        matrix.record(truth, if rng.chance(0.9) { truth } else { off });
    }
    matrix
}

fn names(classes: usize) -> Vec<String> {
    let long = ["tench, Tinca tinca", "great white shark, white shark, man-eater", "cock", "ostrich"];
    (0..classes).map(|c| if classes > 10 { format!("{} {c}", long[c % 4]) } else { c.to_string() }).collect()
}

/// Different colours in a picture: an empty or one-coloured picture has few.
fn colors(picture: &RgbImage) -> usize {
    picture.pixels().map(|p| p.0).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn searches_and_laws_draw_for_any_points() {
    let trial =
        |macs, accuracy, on_front, mark| Trial { macs, accuracy, on_front, mark, label: format!("#{macs}") };
    let trials = [
        trial(1_000_000, 0.8, true, Mark::Baseline),
        trial(4_000_000, 0.9, true, Mark::Best),
        trial(3_000_000, 0.0, false, Mark::None),
    ];
    let level = [(1e6, 0.95), (4e6, 0.9)];
    for (trials, level) in [(&trials[..], &level[..]), (&trials[..1], &[]), (&[], &[])] {
        let picture = pareto("Search", trials, level).unwrap();
        assert!(colors(&picture) > 20, "{} trials", trials.len());
    }
    let named = [(0.5, 1.7, "B1".to_string()), (f64::NAN, 1.0, "B0".to_string())];
    for (scaled, named) in [(&[(0.0, 1.0), (1.0, 2.2)][..], &named[..]), (&[(1.0, 2.2)], &[]), (&[], &[])] {
        assert!(colors(&scaling("Law", scaled, named).unwrap()) > 20);
    }
}

#[test]
fn curves_draw_for_any_number_of_epochs_and_any_values() {
    let mut gaps = rows(30);
    gaps[3].train_loss = f64::NAN;
    gaps[4].train_loss = f64::INFINITY;
    gaps[10].validation = None;
    let mut without = rows(3);
    without.iter_mut().for_each(|row| row.validation = None);
    let mut zero = rows(5);
    zero.iter_mut()
        .for_each(|row| (row.train_loss, row.learning_rate, row.images_per_second) = (0.0, 0.0, 0.0));
    for (name, rows) in [
        ("none", vec![]),
        ("one", rows(1)),
        ("many", rows(300)),
        ("gaps", gaps),
        ("without", without),
        ("zero", zero),
    ] {
        let picture = curves("a run", &rows).unwrap();
        assert_eq!(picture.dimensions(), (1600, 1000), "{name}");
        assert!(colors(&picture) > 20, "{name}");
    }
}

#[test]
fn both_curves_show_in_their_colors_and_the_title_does_too() {
    let picture = curves("digits · resnet", &rows(12)).unwrap();
    let count = |color: [u8; 3]| picture.pixels().filter(|p| p.0 == color).count();
    assert!(count([0x00, 0x72, 0xb2]) > 1_000);
    assert!(count([0xd5, 0x5e, 0x00]) > 1_000);
    let title_ink = (60..400).flat_map(|x| (30..66).map(move |y| (x, y)));
    assert!(title_ink.filter(|&(x, y)| picture.get_pixel(x, y).0[0] < 60).count() > 300);
}

#[test]
fn confusion_draws_for_two_to_thousands_of_classes() {
    for (classes, samples) in
        [(2, 50), (3, 0), (10, 500), (30, 3_000), (31, 3_000), (100, 5_000), (1_203, 20_000)]
    {
        let picture = confusion("a run", &matrix(classes, samples), &names(classes)).unwrap();
        assert!(picture.width() < 1_700 && picture.height() < 1_700, "{classes}: {:?}", picture.dimensions());
        assert!(colors(&picture) > 20, "{classes}");
    }
    assert!(matches!(confusion("a run", &matrix(3, 9), &names(2)), Err(Error::Plot { .. })));
}

#[test]
fn a_picture_is_saved_whole_and_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curves.png");
    for epochs in [1, 2] {
        let picture = curves("a run", &rows(epochs)).unwrap();
        save(&picture, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().into_rgb8(), picture);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("no/such/curves.png");
    let error = save(&RgbImage::new(1, 1), &nowhere).unwrap_err().to_string();
    assert!(error.contains("curves.png"), "{error}");
}

/// Writes samples of every picture to the folder in TALLOW_PLOTS, to look at.
#[test]
#[ignore = "for looking at"]
fn gallery() {
    let folder = std::path::PathBuf::from(std::env::var_os("TALLOW_PLOTS").expect("set TALLOW_PLOTS"));
    for epochs in [1, 12, 30, 90] {
        save(
            &curves("digits · resnet8", &rows(epochs)).unwrap(),
            &folder.join(format!("curves{epochs}.png")),
        )
        .unwrap();
    }
    for classes in [2, 10, 30, 100, 1_203] {
        let picture = confusion("Confusion matrix", &matrix(classes, classes * 36), &names(classes)).unwrap();
        save(&picture, &folder.join(format!("confusion{classes}.png"))).unwrap();
    }
}
