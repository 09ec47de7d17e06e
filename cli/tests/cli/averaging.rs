//! Averages: of what a network says of several views of an image, and of the weights of several trainings.

use crate::support::{QUICK, copy, shared, typed};

fn number(json: &serde_json::Value, key: &str) -> f64 {
    json[key].as_f64().unwrap()
}

#[test]
fn views_are_averaged_alike_for_a_run_and_for_its_onnx_file() {
    let eval = |flags: &str| typed(shared(), &format!("eval run --json {flags}")).json();
    let plain = number(&eval(""), "loss");
    for flags in ["--tta", "--tta=flip", "--tta=five", "--tta=ten"] {
        let (candle, tract) = (eval(flags), eval(&format!("{flags} --engine tract --batch-size 7")));
        assert_eq!((&candle["engine"], &tract["engine"]), (&"candle".into(), &"tract".into()));
        assert!((number(&candle, "loss") - number(&tract, "loss")).abs() < 1e-5, "{flags}");
        assert_eq!((&candle["top1"], &candle["images"]), (&tract["top1"], &tract["images"]));
        assert!((number(&candle, "loss") - plain).abs() > 1e-7, "{flags} changes nothing");
    }
    let warned = typed(shared(), "eval run --tta=five").err;
    assert!(warned.contains("note: this network's preprocessing leaves no margin"), "{warned}");
    assert!((number(&eval("--tta=one"), "loss") - plain).abs() < 1e-12);
    typed(shared(), "eval run --tta=twelve").fails(2, &["twelve", "one, flip, five or ten"]);

    let predict = |flags: &str| {
        let line = format!("predict run data/validation/red/0.png --engine tract --json {flags}");
        typed(shared(), &line).json()[0]["predictions"].as_array().unwrap().clone()
    };
    let averaged = predict("--tta=ten");
    let total: f64 = averaged.iter().map(|prediction| number(prediction, "probability")).sum();
    assert!((total - 1.0).abs() < 1e-5 && averaged[0]["logit"].is_null());
    assert_eq!(predict("--tta=one"), predict(""));
}

#[test]
fn soups_are_what_other_commands_take() {
    let folder = copy();
    let at = folder.path();
    let start = "run/checkpoints/last/weights.safetensors";
    for seed in [1, 2] {
        typed(at, &format!("{QUICK} --data data --weights {start} --seed {seed} --run r{seed}")).ok();
    }
    typed(at, "soup r1 r2 -o uniform").ok();
    let made = typed(at, &format!("soup r1 r2 {start} --greedy --recalibrate -o soup --json")).json();
    let ingredients = made["ingredients"].as_array().unwrap();
    let best = ingredients.iter().map(|i| i["validation"]["top1"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(made["validation"]["top1"].as_f64().unwrap() >= best, "a greedy soup is no worse: {made}");
    assert!(ingredients.iter().any(|ingredient| ingredient["taken"] == true));

    let found = typed(at, "eval soup --data data --json").json();
    assert!((number(&found, "loss") - number(&made["validation"], "loss")).abs() < 1e-9);
    typed(at, "predict soup data/validation/red/0.png --engine tract").ok();
    typed(at, "export soup -o soup.onnx").ok();
    typed(at, "verify uniform").ok();
    let table = typed(at, "soup r1 uniform --data data -o both").ok();
    // One alone can be given new moments.
    typed(at, "soup r1 --recalibrate -o fresh").ok();
    assert!(table.contains("r1 ") && table.contains("soup ") && table.contains("2 ingredients"), "{table}");
}

#[test]
fn a_soup_is_not_judged_in_silence_on_images_that_an_ingredient_learned_from() {
    let folder = copy();
    let at = folder.path();
    std::fs::rename(at.join("data/validation"), at.join("elsewhere")).unwrap();
    for seed in [1, 2] {
        typed(at, &format!("{QUICK} --data data --split-seed {seed} --run r{seed}")).ok();
    }
    // Another seed alone holds out the same images.
    typed(at, &format!("{QUICK} --data data --split-seed 1 --seed 5 --run same")).ok();
    let run = typed(at, "soup r1 same --greedy -o same-soup");
    assert!(!run.err.contains("held out other images"), "{}", run.err);
    let run = typed(at, "soup r1 r2 --greedy -o soup");
    assert!(run.err.contains("note: r2 held out other images than the first run"), "{}", run.err);
    run.ok();
}

#[test]
fn soups_that_cannot_be() {
    let folder = copy();
    let at = folder.path();
    let weights = "run/checkpoints/last/weights.safetensors";
    typed(at, "soup run -o soup").fails(2, &["at least two ingredients"]);
    typed(at, &format!("soup {weights} {weights} -o soup")).fails(2, &["a run or a SavedModel among them"]);
    typed(at, "soup run/saved_model run/saved_model --greedy -o soup").fails(2, &["--data FOLDER"]);
    typed(at, "soup run nowhere -o soup").fails(1, &["nowhere does not exist"]);
    let quick = QUICK.replace("plain_cnn", "resnet20");
    typed(at, &format!("{quick} --data data --run other")).ok();
    typed(at, "soup run other -o soup").fails(1, &["run and other differ", "plain_cnn and resnet20"]);
    typed(at, &format!("soup other {weights} -o soup")).fails(1, &[weights, "resnet20"]);
    typed(at, "soup run run --data digits --greedy -o soup").fails(1, &["other classes"]);
    assert!(!at.join("soup").exists());
}
