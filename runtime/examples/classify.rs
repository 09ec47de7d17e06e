//! Serves one model: `cargo run --release -p tallow-runtime --example classify -- model.onnx photo.jpg …`
//! prints the three most probable classes of each photo, and on stderr which engine ran and why.

use tallow_runtime::{Classifier, RuntimeError};

fn main() -> Result<(), RuntimeError> {
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!("usage: classify MODEL.onnx PHOTO…");
        std::process::exit(2);
    };
    let classifier = Classifier::open(model)?;
    eprintln!("{}", classifier.selection());
    for photo in arguments {
        println!("{photo}");
        for prediction in classifier.classify_file(&photo, 3)? {
            println!("  {:5.1} %  {}", 100.0 * prediction.probability, prediction.label);
        }
    }
    Ok(())
}
