//! Class activation maps find an object: photos in which it fills one quadrant have the map's peak there.

use std::path::Path;

use candle_core::{Device, Tensor};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use libtest_mimic::{Failed, Trial};
use tallow_builder::Network;
use tallow_builder::cam::class_activation_maps;
use tallow_exporter::{Head, read_weights};
use tallow_input::decode_file;
use tallow_models::{Options, find, imagenet_labels};
use tallow_trainer::plot::ActivationMap;

use crate::packages::{Packages, WEIGHTS};

/// Twice the network's native side: an object in a quadrant has the size that the network knows, and no cell of the map
/// belongs to two quadrants.
const SIDE: u32 = 448;
/// Photos, the square in them (left, top, side) that the object fills, and its class.
const OBJECTS: [(&str, [u32; 3], &str); 3] = [
    ("skimage/data/chelsea.png", [90, 0, 300], "tiger cat"),
    ("skimage/data/coffee.png", [100, 0, 400], "espresso"),
    ("sklearn/datasets/images/flower.jpg", [110, 0, 427], "daisy"),
];

pub fn trials(packages: &Packages) -> Vec<Trial> {
    vec![packages.trial("class_activation_maps_peak_in_the_objects_quadrant", run)]
}

fn run(folder: &Path) -> Result<(), Failed> {
    let network = find("efficientnet_lite0")?;
    let preprocess = tallow_input::Preprocess { crop_fraction: 1.0, ..network.preprocess(SIDE, SIDE) };
    let graph = network.build(&Options::new(1000, SIDE as usize))?;
    let weights = read_weights(&graph, &folder.join(WEIGHTS), None, Head::Kept, &Device::Cpu)?.weights;
    let network = Network::new(graph, weights);
    let labels = imagenet_labels();
    for (photo, [left, top, side], label) in OBJECTS {
        let photo_pixels = decode_file(folder.join(photo))?;
        let side = side.min(photo_pixels.height());
        let object = imageops::crop_imm(&photo_pixels, left, top, side, side).to_image();
        let object = imageops::resize(&object, SIDE / 2, SIDE / 2, FilterType::CatmullRom);
        let class = labels.iter().position(|known| known == label).ok_or("a class of ImageNet")?;
        for (column, row) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let mut image = RgbImage::from_pixel(SIDE, SIDE, Rgb([127; 3]));
            imageops::replace(&mut image, &object, i64::from(column * SIDE / 2), i64::from(row * SIDE / 2));
            let side = SIDE as usize;
            let input = Tensor::from_vec(preprocess.apply(&image)?, (1, 3, side, side), &Device::Cpu)?;
            let (logits, maps) = class_activation_maps(&network, &input)?.ok_or("the network has maps")?;
            let (_, _, rows, columns) = maps.dims4()?;
            let values: Vec<f32> = maps.get(0)?.get(class)?.flatten_all()?.to_vec1()?;

            // The identity: the map's mean and the bias make the logit.
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
            let bias = f64::from(network.weights().get("classifier.1.bias").get(class)?.to_scalar::<f32>()?);
            let logit = f64::from(logits.get(0)?.get(class)?.to_scalar::<f32>()?);
            let error = (mean + bias - logit).abs() / logit.abs();

            let map = ActivationMap { label: label.into(), probability: 0.0, size: [rows, columns], values };
            let (x, y) = map.peak(side, side);
            println!("{label} at ({column}, {row}): peak ({x:.2}, {y:.2}), identity within {error:.1e}");
            if (u32::from(x >= 0.5), u32::from(y >= 0.5)) != (column, row) {
                return Err(format!(
                    "{label} in quadrant ({column}, {row}): the peak is at ({x:.2}, {y:.2})"
                )
                .into());
            }
            if error > 1e-5 {
                return Err(format!("{label}: mean and bias differ from the logit by {error:e}").into());
            }
        }
    }
    Ok(())
}
