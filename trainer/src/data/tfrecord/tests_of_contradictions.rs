//! Shards that the files beside them contradict.

use std::fs;

use tempfile::TempDir;

use super::tests::{example, loader, opened, png, problem, shards, text, verified, write_shard};
use super::{Known, LABELS_FILE, RecordOptions, Splits};
use crate::data::SplitOptions;

/// The shards of [`shards`] with a journal, as `prepare` leaves them.
fn prepared() -> TempDir {
    let folder = shards();
    let located = super::locate(text(&folder)).unwrap().unwrap();
    let mut lines = vec![
        r#"{"format":1,"schema":"imagenet","name":null,"label_offset":1,"seed":0,"validation_share":null,"parts":
        {"train":{"images":40,"shards":2},"validation":{"images":6,"shards":1}},"files":""}"#
            .replace('\n', ""),
    ];
    for set in &located.sets {
        for (path, images, bytes) in super::Index::scan(set.files.clone()).unwrap().sizes() {
            let shard = path.file_name().unwrap().to_str().unwrap();
            lines.push(format!(
                r#"{{"shard":"{shard}","images":{images},"bytes":{bytes},"reencoded":[],"skipped":[]}}"#
            ));
        }
    }
    fs::write(folder.path().join("prepare.jsonl"), lines.join("\n") + "\n").unwrap();
    fs::write(folder.path().join(LABELS_FILE), "a\nb\nc\n").unwrap();
    assert_eq!(verified(&folder).problems, <[String; 0]>::default());
    folder
}

fn refused(folder: &TempDir) -> String {
    problem(text(folder), &RecordOptions::default())
}

/// The only problem that is found.
fn found(folder: &TempDir) -> String {
    let problems = verified(folder).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

#[test]
fn shards_that_lost_records_are_refused() {
    for records in [0, 19] {
        let folder = prepared();
        let path = folder.path().join("train-00001-of-00002");
        let end = super::Index::scan(vec![path.clone()]).unwrap().start_of(records);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
        let error = refused(&folder);
        let expected =
            format!("train-00001-of-00002: {records} records, 20 were written, says prepare.jsonl: ");
        assert!(error.contains(&expected), "{error}");
        assert_eq!(found(&folder), error);
    }
}

#[test]
fn a_shard_in_the_place_of_another_is_refused() {
    let folder = prepared();
    let longer: Vec<_> = (0..20).map(|_| example(&[png(7), vec![0]].concat(), 1, "a")).collect();
    write_shard(&folder.path().join("train-00000-of-00002"), &longer);
    let error = refused(&folder);
    assert!(error.contains("train-00000-of-00002: ") && error.contains("it is another file"), "{error}");
    assert_eq!(found(&folder), error);
}

#[test]
fn a_lost_validation_part_is_not_held_out_of_the_training_images() {
    let folder = prepared();
    fs::remove_file(folder.path().join("validation-00000-of-00001")).unwrap();
    let error = refused(&folder);
    assert!(error.contains("no validation shards, but prepare.jsonl tells of 1: restore them"), "{error}");
    assert!(error.starts_with(&found(&folder)), "{error}");
    opened(&format!("{}/train-*", text(&folder)), &RecordOptions::default()).unwrap();
    fs::remove_file(folder.path().join("prepare.jsonl")).unwrap();
    let info = r#"{"splits": [{"name": "train", "shardLengths": ["20", "20"]},
        {"name": "validation", "shardLengths": ["6"]}]}"#;
    fs::write(folder.path().join("dataset_info.json"), info).unwrap();
    assert!(found(&folder).contains("no validation shards, but dataset_info.json tells of 1"));
}

#[test]
fn both_files_that_tell_of_shards_are_believed() {
    let folder = prepared();
    let info = r#"{"splits": [{"name": "train", "shardLengths": ["20", "21"]}]}"#;
    fs::write(folder.path().join("dataset_info.json"), info).unwrap();
    let problem = found(&folder);
    assert!(problem.contains("20 records, 21 were written, says dataset_info.json"), "{problem}");
}

#[test]
fn a_damaged_journal_is_one_problem() {
    let folder = prepared();
    fs::write(folder.path().join("prepare.jsonl"), "garbage\n").unwrap();
    assert!(found(&folder).contains("prepare.jsonl: damaged"));
}

#[test]
fn exchanged_names_are_found_by_what_the_records_say() {
    let folder = prepared();
    fs::write(folder.path().join(LABELS_FILE), "b\na\nc\n").unwrap();
    let error = refused(&folder);
    assert!(error.contains("record at byte 0: its class is called a, not b, as "), "{error}");
    assert_eq!(found(&folder), error);
    // Names in other words than the records' are no contradiction.
    fs::write(folder.path().join(LABELS_FILE), "tench\nshark\nray\n").unwrap();
    opened(text(&folder), &RecordOptions::default()).unwrap();
}

#[test]
fn a_stray_label_0_is_left_out_where_it_is_said_that_labels_start_at_1() {
    let folder = prepared();
    let path = folder.path().join("train-00001-of-00002");
    let mut records: Vec<_> = (20..40).map(|i| example(&png(i), 1 + i64::from(i) % 3, "")).collect();
    records[3] = example(&png(0), 0, "");
    write_shard(&path, &records);
    let length = fs::metadata(&path).unwrap().len() - 16 * 20;
    let journal = fs::read_to_string(folder.path().join("prepare.jsonl")).unwrap();
    let lines = journal.lines().map(|line| match line.contains("\"train-00001") {
        true => format!(
            "{{\"shard\":\"train-00001-of-00002\",\"images\":20,\"bytes\":{length},\"reencoded\":[],\"skipped\":[]}}\n"
        ),
        false => format!("{line}\n"),
    });
    fs::write(folder.path().join("prepare.jsonl"), lines.collect::<String>()).unwrap();
    let loader = loader(opened(text(&folder), &RecordOptions::default()).unwrap().train, 1, false);
    assert_eq!(loader.epoch(0, 0).unwrap().map(|batch| batch.unwrap().len()).sum::<usize>(), 39);
    assert!(loader.skipped()[0].reason.contains("its label 0 is out of range"));
    let verified = verified(&folder);
    assert_eq!((verified.records, verified.problems.len()), (45, 1), "{verified:?}");
}

#[test]
fn another_label_offset_is_advised_where_it_would_fit() {
    let folder = shards();
    let names = ["a", "b", "c"].map(String::from);
    let known = Known { classes: &names, label_offset: Some(0) };
    let open = |options: &RecordOptions| {
        Splits::open(text(&folder), SplitOptions::default(), Some(options), Some(known))
    };
    let error = open(&RecordOptions::default()).err().unwrap().to_string();
    assert!(error.contains("its class is called a, not b: say --label-offset 1"), "{error}");
    let advised = RecordOptions { label_offset: Some(1), ..RecordOptions::default() };
    assert_eq!(open(&advised).unwrap().train.len(), 40);
}
