//! Shards that Tallow makes of a folder: `tf.data` reads them, and TensorFlow's writer gives the same bytes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use image::{ImageFormat, Rgb, RgbImage};
use libtest_mimic::Trial;
use tallow_trainer::data::prepare::{Options, Schema, prepare};
use tallow_trainer::tally::Show;

use crate::environment::Environment;

/// One trial for each schema.
pub fn trials(environment: &Environment) -> Vec<Trial> {
    let trial = |schema: Schema| {
        environment.trial(&format!("records::{schema}"), move |python| {
            let folder = tempfile::tempdir().unwrap();
            let shards = shards(folder.path(), schema);
            let schema = schema.to_string();
            let paths = shards.iter().map(|path| path.as_os_str());
            python.run("records.py", &std::iter::once(OsStr::new(&schema)).chain(paths).collect::<Vec<_>>())
        })
    };
    Schema::ALL.map(trial).into()
}

/// Shards of colour, grey and PNG images, with texts and boxes where the schema has them.
fn shards(folder: &Path, schema: Schema) -> Vec<PathBuf> {
    let source = folder.join("images");
    for i in 0..24u32 {
        let part = if i % 4 == 3 { "validation" } else { "train" };
        let class = source.join(part).join(format!("n0000000{}", i / 4 % 3));
        std::fs::create_dir_all(&class).unwrap();
        let picture =
            RgbImage::from_fn(30 + i, 20, |x, y| Rgb([(x * 5) as u8, (y * 9) as u8, (i * 10) as u8]));
        let file = class.join(format!("Bild ü {i}.JPEG"));
        let format = if i % 7 == 0 { ImageFormat::Png } else { ImageFormat::Jpeg };
        match i % 5 {
            0 => image::DynamicImage::from(picture).into_luma8().save_with_format(file, format).unwrap(),
            _ => picture.save_with_format(file, format).unwrap(),
        }
    }
    let mut options =
        Options { schema, train_shards: Some(2), validation_shards: Some(1), ..Options::default() };
    if schema == Schema::Inception {
        let (texts, boxes) = (folder.join("texts"), folder.join("boxes"));
        std::fs::write(&texts, "n00000000\ttench, Tinca tinca\nn00000002\tgoldfish\n").unwrap();
        std::fs::write(&boxes, "Bild ü 1.JPEG,0.0060,0.2620,0.7545,0.9940\nBild ü 1.JPEG,0,0,1,0.5\n")
            .unwrap();
        (options.texts, options.boxes) = (Some(texts), Some(boxes));
    }
    let out = folder.join("shards");
    prepare(&source, &out, &options, Show::Nothing, &AtomicBool::new(false)).unwrap();
    let entries = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    let is_shard = |path: &PathBuf| path.to_string_lossy().contains("-of-");
    entries.filter(is_shard).collect()
}
