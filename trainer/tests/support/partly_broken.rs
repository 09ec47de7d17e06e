//! Images of which some are none, for unit tests of the trainer and for tests of whole runs.

use std::path::Path;

/// Noise in class folders, so many images in each, of which those that `is_broken` says are none. Gives the folder's
/// name.
pub fn partly_broken(folder: &Path, images: usize, is_broken: impl Fn(usize) -> bool) -> String {
    let mut rng = tallow_builder::Rng::new(4);
    for class in ["dark", "light"] {
        let path = folder.join("train").join(class);
        std::fs::create_dir_all(&path).unwrap();
        for number in 0..images {
            let file = path.join(format!("{number}.png"));
            let base = if class == "light" { 100 } else { 0 };
            let pixel = |_, _| image::Rgb([0; 3].map(|_: u8| base + rng.below(120) as u8));
            image::RgbImage::from_fn(8, 8, pixel).save(&file).unwrap();
            if is_broken(number) {
                std::fs::write(&file, "no image").unwrap();
            }
        }
    }
    folder.to_str().unwrap().to_owned()
}
