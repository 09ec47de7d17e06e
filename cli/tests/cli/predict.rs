//! `tallow predict`: labels for images, one by one or by the folder, with our files and with those of others.

use std::fs;

use crate::support::{CLASSES, QUICK, copy, cut, shared, typed};

#[test]
fn images_and_folders_get_labels() {
    let out =
        typed(shared(), "predict run data/validation/red data/validation/green/0.png --engine tract").ok();
    let files: Vec<&str> = out.lines().filter(|line| line.starts_with("data/")).collect();
    let red = ["0.png", "1.jpg", "2.bmp"].map(|name| format!("data/validation/red/{name}"));
    assert_eq!(files, [&red[0], &red[1], &red[2], "data/validation/green/0.png"]);
    assert_eq!(out.lines().filter(|line| line.contains(" %  ")).count(), 4 * CLASSES.len());
    typed(shared(), "predict run data --engine tract").fails(1, &["no images in the folder data", "jpg"]);
}

#[test]
fn json_has_all_that_is_known_of_a_class() {
    let json =
        typed(shared(), "predict run/model.onnx data/train/red/0.png --engine tract --json -k 2").json();
    let predictions = json[0]["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 2);
    let best = &predictions[0];
    assert_eq!(best["label"], CLASSES[best["index"].as_u64().unwrap() as usize]);
    assert!(best["probability"].as_f64().unwrap() >= predictions[1]["probability"].as_f64().unwrap());
    assert!(best["logit"].is_number());
}

#[test]
fn a_broken_image_fails_and_the_others_are_labelled() {
    let folder = copy();
    cut(&folder.path().join("data/train/red/0.png"));
    let broken = "data/train/red/0.png: the image is cut short";
    let line = "predict run --engine tract data/train/red/0.png data/train/red/1.jpg";
    let run = typed(folder.path(), line);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains(broken), "{}", run.err);
    assert!(run.out.contains("data/train/red/1.jpg\n") && run.out.contains("red"), "{}", run.out);

    let run = typed(folder.path(), &format!("{line} --json"));
    assert_eq!(run.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(json[0]["error"], broken);
    assert_eq!(json[1]["predictions"].as_array().unwrap().len(), 3);
    typed(folder.path(), "predict run nowhere.png --engine tract").fails(1, &["nowhere.png", "No such file"]);
}

#[test]
fn every_photo_that_cannot_be_used_is_named_and_the_others_are_labelled() {
    let folder = copy();
    let at = folder.path();
    fs::create_dir(at.join("bad")).unwrap();
    image::RgbImage::new(1, 16_000).save(at.join("bad/narrow.png")).unwrap();
    image::RgbImage::new(9, 9).save(at.join("bad/sound.png")).unwrap();
    let mut damaged = fs::read(at.join("bad/sound.png")).unwrap();
    let last = damaged.len() - 17;
    damaged[last] ^= 1;
    fs::write(at.join("bad/damaged.png"), damaged).unwrap();
    for (name, bytes) in [("named.png", "GIF89a.."), ("film.gif", "GIF89a.."), ("scan.tiff", "II*..")] {
        fs::write(at.join("bad").join(name), bytes.replace("*..", "*\0..")).unwrap();
    }
    // Images large enough that a photo of one column would be resized beyond all memory.
    typed(
        at,
        &format!("{QUICK} --size 128 --epochs 1 --data data --run wide")
            .replace("--size 8 ", "")
            .replace("--epochs 2 ", ""),
    )
    .ok();
    typed(at, "export wide").ok();
    for command in ["predict wide --engine tract", "cam wide -k 1"] {
        let run = typed(at, &format!("{command} bad"));
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(run.out.contains("sound"), "{run:#?}");
        for says in [
            "bad: 2 files passed over (1 .gif, 1 .tiff): ",
            "error: bad/narrow.png: cannot resize: from 1x16000 to ",
            "error: bad/damaged.png: damaged image: the checksum of its ",
            "error: bad/named.png: GIF images are not read here: this one may be an animation",
        ] {
            assert!(run.err.contains(says), "{says}: {run:#?}");
        }
        assert!(run.err.lines().filter(|line| line.starts_with("error: ")).all(|line| line.contains("bad/")));
        assert!(!run.err.contains('{'), "{run:#?}");
    }
}

#[test]
fn a_file_of_others_needs_labels_and_size() {
    let folder = copy();
    let at = folder.path();
    let model = fs::read(at.join("run/model.onnx")).unwrap();
    fs::write(at.join("foreign.onnx"), without_metadata(&model)).unwrap();
    fs::write(at.join("names.txt"), "a\nb\nc\n").unwrap();
    fs::write(at.join("two.txt"), "a\nb\n").unwrap();
    let line = "predict foreign.onnx data/train/red/0.png --engine tract";

    let parts = ["foreign.onnx", "no tallow metadata", "--labels FILE", "--size PIXELS"];
    typed(at, line).fails(1, &parts);
    typed(at, &format!("{line} --size 8")).fails(1, &parts);
    typed(at, &format!("{line} --labels names.txt")).fails(1, &parts);
    typed(at, &format!("{line} --size 8 --labels two.txt")).fails(1, &["3 classes", "2 labels"]);
    typed(at, &format!("{line} --size 12 --labels names.txt")).fails(1, &["[3, 12, 12]", "3, 8, 8"]);
    typed(at, &format!("{line} --size 8 --labels nowhere")).fails(1, &["cannot read nowhere"]);
    typed(at, &format!("{line} --size 8 --labels names.txt --mean 1,2"))
        .fails(2, &["--mean", "three numbers"]);

    let ours = typed(at, "predict run data/train/red/0.png --engine tract --json").json();
    let json = typed(at, &format!("{line} --size 8 --labels names.txt --json")).json();
    assert_eq!(json[0]["predictions"][0]["logit"], ours[0]["predictions"][0]["logit"]);
    assert!(["a", "b", "c"].contains(&json[0]["predictions"][0]["label"].as_str().unwrap()));
    typed(at, "eval foreign.onnx --data data --engine tract").fails(1, &parts);
    fs::write(at.join("names.txt"), CLASSES.join("\n")).unwrap();
    typed(at, "eval foreign.onnx --data data --engine tract --size 8 --labels names.txt").ok();
    typed(at, "verify foreign.onnx").ok();
}

/// The score of the first image, under flags.
#[track_caller]
fn logit(at: &std::path::Path, line: &str) -> f64 {
    typed(at, line).json()[0]["predictions"][0]["logit"].as_f64().unwrap()
}

#[test]
fn flags_change_what_they_name_and_nothing_else() {
    let folder = copy();
    let at = folder.path();
    let training =
        "train --model plain_cnn --size 8 --batch-size 8 --epochs 1 --warmup 0 --data data --run grey";
    let text = typed(at, &format!("{} --print-config", training.replace(" --run grey", ""))).ok();
    let grey = "[0.5, 0.5, 0.5]";
    let line = |line: &str| match line.split(' ').next() {
        Some(key @ ("mean" | "std")) => format!("{key} = {grey}\n"),
        _ => format!("{line}\n"),
    };
    fs::write(at.join("grey.toml"), text.lines().map(line).collect::<String>()).unwrap();
    typed(at, "train --config grey.toml --run grey").ok();
    typed(at, "export grey").ok();

    let line = "predict grey data/train/red/0.png --engine tract --json";
    let plain = logit(at, line);
    assert_eq!(logit(at, &format!("{line} --size 8")), plain);
    assert_eq!(logit(at, &format!("{line} --size 8 --mean 0.5,0.5,0.5")), plain);
    assert_eq!(logit(at, &format!("{line} --std 0.5,0.5,0.5")), plain);
    assert_ne!(logit(at, &format!("{line} --mean 0.2,0.2,0.2")), plain);
    typed(at, &format!("{line} --probabilities"))
        .fails(2, &["grey/model.onnx", "ends in logits", "leave that out"]);
    typed(at, "eval run --mean 0.5,0.5,0.5").fails(2, &["name its .onnx file"]);
}

#[test]
fn a_missing_image_is_told_before_an_engine_is_opened() {
    let run = typed(shared(), "predict run nowhere.png");
    assert!(!run.err.contains("engine "), "{}", run.err);
    run.fails(1, &["cannot read nowhere.png", "No such file"]);
}

/// A ModelProto without its metadata_props, field 14.
fn without_metadata(model: &[u8]) -> Vec<u8> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let (mut kept, mut at) = (vec![], 0);
    while at < model.len() {
        let start = at;
        let tag = varint(model, &mut at);
        let value = varint(model, &mut at);
        if tag & 7 == 2 {
            at += value as usize;
        }
        if tag >> 3 != 14 {
            kept.extend_from_slice(&model[start..at]);
        }
    }
    kept
}
