//! Images of which half are none, for unit tests of the trainer and for tests of whole runs.

use std::path::Path;

/// Noise in class folders, every other image of which is none: shares of a batch have two, one or nothing. Gives the
/// folder's name.
pub fn half_broken(folder: &Path) -> String {
    let mut rng = tallow_builder::Rng::new(4);
    for class in ["dark", "light"] {
        let path = folder.join("train").join(class);
        std::fs::create_dir_all(&path).unwrap();
        for number in 0..24 {
            let file = path.join(format!("{number}.png"));
            let base = if class == "light" { 100 } else { 0 };
            let pixel = |_, _| image::Rgb([0; 3].map(|_: u8| base + rng.below(120) as u8));
            match number % 2 {
                0 => image::RgbImage::from_fn(8, 8, pixel).save(&file).unwrap(),
                _ => std::fs::write(&file, "no image").unwrap(),
            }
        }
    }
    folder.to_str().unwrap().to_owned()
}
