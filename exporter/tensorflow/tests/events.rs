//! Event files: TensorFlow's own bytes, files that read back, and damage of any kind.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use tallow_tensorflow::event::hparams::{self, Metric, Status, Value};
use tallow_tensorflow::event::{
    self, Event, EventReader, EventWriter, Histogram, Summary, SummaryValue, ThresholdCounts, is_event_file,
};
use tallow_tensorflow::proto::GraphDef;
use tallow_tensorflow::record::{RecordReader, write_record};

/// Records that `tf.summary` of TensorFlow 2.21 wrote: `scalar("epoch/loss", 0.75, step=3)`, `text("t", "hello")` and
/// `image("i", zeros(1, 2, 3, 3))`.
const SCALAR: &str = "34000000000000005e33175c09babbf6cc58c1da4110032a270a250a0a65706f63682f6c6f7373420a0801120022040000\
                      403f4a0b0a090a077363616c617273108e7b04";
const TEXT: &str = "2700000000000000bbe1b14609d481f7cc58c1da412a1c0a1a0a0174420b08071200420568656c6c6f4a080a060a04746578\
                    74eecb93af";
const IMAGE: &str = "720000000000000025053a8209d368f7cc58c1da412a670a650a01694254080712041202080342013342013242448950\
                     4e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000000b4944415408996360c00400001400\
                     0165f587590000000049454e44ae4260824a0a0a080a06696d616765732996779e";
/// TensorBoard's `hparams.summary.session_end_pb(STATUS_SUCCESS, 7.5)`.
const SESSION_END: &str = "0a1a5f68706172616d735f2f73657373696f6e5f656e645f696e666f42060801120212004a1a0a180a0768706172616d\
                           73120d220b0801110000000000001e40";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// TensorFlow's record, and ours of the same value at the same time.
#[track_caller]
fn same(theirs: &str, step: i64, value: SummaryValue) {
    let theirs = bytes(theirs);
    // After the length, its checksum and the time's key.
    let wall_time = f64::from_le_bytes(theirs[13..21].try_into().unwrap());
    let summary = Some(Summary { value: vec![value] });
    let mut ours = vec![];
    let event = Event { wall_time, step, summary, ..Event::default() };
    write_record(&mut ours, &event.encode_to_vec()).unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn scalars_texts_images_and_hyperparameters_are_tensorflows_bytes() {
    same(SCALAR, 3, event::scalar("epoch/loss", 0.75));
    same(TEXT, 0, event::text("t", "hello"));
    let (start, end) = (IMAGE.find("89504e47").unwrap(), IMAGE.find("ae426082").unwrap() + 8);
    same(IMAGE, 0, event::image("i", 3, 2, bytes(&IMAGE[start..end])));
    let end = hparams::session_end(Status::Success, 7.5);
    assert_eq!(end.encode_to_vec(), bytes(SESSION_END));
}

#[test]
fn histograms_have_tensorflows_edges_and_counts() {
    // tf.summary.histogram("h", [0, 1, 1, 2, 4, 8.5])
    let filled = [(0, 1.0), (3, 2.0), (7, 1.0), (14, 1.0), (29, 1.0)];
    let buckets = Histogram::of(&[0.0, 1.0, 1.0, 2.0, 4.0, 8.5]).buckets();
    for (i, [left, right, count]) in buckets.into_iter().enumerate() {
        let expected = filled.iter().find(|(bucket, _)| *bucket == i).map_or(0.0, |(_, count)| *count);
        assert_eq!(count, expected, "bucket {i}");
        assert!((left - 8.5 * i as f64 / 30.0).abs() < 1e-12 && right > left);
    }
}

/// One event of each kind.
fn write_some(folder: &Path) -> EventWriter {
    let mut writer = EventWriter::create(folder).unwrap();
    let values = BTreeMap::from([
        ("rate".to_owned(), Value::Number(0.1)),
        ("optimizer".to_owned(), Value::Text("sgd".into())),
        ("nesterov".to_owned(), Value::Bool(true)),
    ]);
    let metric =
        Metric { group: "validation".into(), tag: "epoch/top1".into(), display_name: "top-1".into() };
    writer
        .summary(0, vec![hparams::experiment(&values, &[metric]), hparams::session_start(&values, 1.0)])
        .unwrap();
    writer.graph(&GraphDef::default()).unwrap();
    let mut counts = ThresholdCounts::default();
    counts.add(0.7, true);
    writer.summary(1, vec![event::scalar("a", 1.0), event::pr_curve("b", &counts)]).unwrap();
    writer
        .summary(2, vec![event::histogram("c", &Histogram::of(&[1.0, 2.0])), event::text("d", "e")])
        .unwrap();
    writer.restart(2).unwrap();
    writer.flush().unwrap();
    writer
}

#[test]
fn files_read_back_and_later_ones_sort_later() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|_| write_some(folder.path()).path().to_owned()).collect();
    assert!(paths.is_sorted() && paths.iter().all(|path| is_event_file(path)));
    let events: Vec<Event> = EventReader::open(&paths[2]).unwrap().map(Result::unwrap).collect();
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let steps: Vec<i64> = events.iter().map(|event| event.step).collect();
    assert_eq!(steps, [0, 0, 0, 1, 2, 2]);
    assert!(events.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = EventWriter::create(&file).unwrap_err().to_string();
    assert!(error.contains("file: "), "{error}");
}

/// Bytes of a real file, changed, cut and doubled at random, some with their checksums made right again: events or an
/// error come of it, and never a panic.
#[test]
fn no_damage_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_some(folder.path()).path().to_owned();
    let sound = std::fs::read(&path).unwrap();
    let records: Vec<Vec<u8>> = RecordReader::open(&path).unwrap().map(Result::unwrap).collect();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let (mut whole, mut failed) = (0, 0);
    for round in 0..4000 {
        let mut bytes = vec![];
        if round % 2 == 0 {
            bytes.clone_from(&sound);
            mutate(&mut bytes, &mut random);
        } else {
            for record in &records {
                let mut record = record.clone();
                if random(3) == 0 {
                    mutate(&mut record, &mut random);
                }
                write_record(&mut bytes, &record).unwrap();
            }
        }
        let events: Vec<_> = EventReader::new(Path::new("memory"), &bytes[..]).collect();
        let sound = events.iter().take_while(|event| event.is_ok()).count();
        assert!(events.len() - sound <= 1, "nothing follows an error");
        if let Some(Err(error)) = events.last() {
            assert!(error.to_string().starts_with("memory: damaged at byte "), "{error}");
            failed += 1;
        } else {
            whole += 1;
        }
    }
    assert!(whole > 100 && failed > 1000, "{whole} whole, {failed} failed");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut impl FnMut(usize) -> usize) {
    for _ in 0..=random(4) {
        let at = random(bytes.len());
        match random(4) {
            0 => bytes.truncate(at),
            1 if !bytes.is_empty() => bytes[at] = random(256) as u8,
            2 if !bytes.is_empty() => bytes[at] ^= 1 << random(8),
            _ => bytes.insert(at.min(bytes.len()), random(256) as u8),
        }
    }
}
