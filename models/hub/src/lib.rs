//! Published weights: which network they are of, how its images are prepared, what its classes are called.
//! [`Pretrained::open`] takes a repository of the Hugging Face hub, a folder as the hub has it, or a bare file;
//! nothing here reads a tensor.

mod config;
mod download;
mod error;
mod intact;
mod progress;
mod repository;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use repository::Repository;
use tallow_input::Preprocess;
use tallow_models::Architecture;

pub use error::{Error, Request, Result};

/// What the names of the hub's repositories start with.
pub const HUB: &str = "hf:";

/// The file that describes weights, as timm writes it.
const CONFIG: &str = "config.json";
/// The files that may hold the weights, best first.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Weights and what has to be known to use them.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// The network.
    pub network: &'static Architecture,
    /// The file with the weights.
    pub weights: PathBuf,
    /// Classes, where their description says.
    pub classes: Option<usize>,
    /// How images are prepared.
    pub preprocess: Preprocess,
    /// The classes' names, in the order of the outputs, where their description says.
    pub labels: Option<Vec<String>>,
}

impl Pretrained {
    /// Finds weights: `hf:timm/resnet18.a1_in1k` (with `@` and a branch, tag or commit, if not the newest) is
    /// downloaded, or taken from the hub's cache; a folder has `config.json` and the weights as the hub's do; anything
    /// else is a file with weights, whose `network` has to be said, and whose preprocessing is that of the weights that
    /// the network is best known for.
    ///
    /// # Errors
    /// Where nothing is there, the hub cannot be reached, the description cannot be understood, or it is of another
    /// network than the one that is said.
    pub fn open(source: &str, network: Option<&str>) -> Result<Self> {
        let said = network.map(tallow_models::find).transpose()?;
        if let Some(name) = source.strip_prefix(HUB) {
            let repository = Repository::named(name)?;
            // First, because it is small and may say that the rest is of no use.
            let found = described(&repository.config()?, said)?;
            return Ok(Self { weights: repository.weights()?, ..found });
        }
        let path = Path::new(source);
        let config = path.join(CONFIG);
        if config.is_file() {
            let weights = WEIGHTS.iter().map(|name| path.join(name)).find(|path| path.is_file());
            let weights = weights.ok_or_else(|| Error::NoWeights { folder: path.to_owned() })?;
            return Ok(Self { weights, ..described(&config, said)? });
        }
        if !is_there(path) {
            return Err(Error::NotThere { path: path.to_owned() });
        }
        if is_onnx(path) {
            return Err(Error::Onnx { path: path.to_owned() });
        }
        let network = said.ok_or_else(|| Error::NoNetwork { path: path.to_owned() })?;
        let side = network.native as u32;
        let preprocess = network.preprocess(side, side);
        Ok(Self { network, weights: path.to_owned(), classes: None, preprocess, labels: None })
    }
}

/// Whether anything is there: a file, a folder, or a checkpoint of TensorFlow's, whose files begin with the path.
fn is_there(path: &Path) -> bool {
    let mut index = path.as_os_str().to_owned();
    index.push(".index");
    path.exists() || Path::new(&index).exists()
}

/// Whether a file begins as an ONNX model does, with the version of its format and another field. Safetensors begin with
/// a length in 8 bytes, of which no more than the first 4 are used.
fn is_onnx(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[0] == 0x08 && (3..32).contains(&start[1]) && start[4..] != [0; 4]
}

/// What a description says, if it is of the network that is said; the weights are for the caller to find.
fn described(config: &Path, said: Option<&'static Architecture>) -> Result<Pretrained> {
    let found = config::read(config)?;
    match said {
        Some(said) if said.name != found.network.name => {
            Err(Error::OtherNetwork { path: config.to_owned(), found: found.network.name, said: said.name })
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_holds_is_told_before_the_network_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let source = path.display().to_string();
            Pretrained::open(source.trim_end_matches(".index"), None).unwrap_err()
        };
        let onnx = said("m.onnx", b"\x08\x08\x12\x06tallow\x1a\x00");
        assert!(matches!(onnx, Error::Onnx { .. }), "{onnx}");
        // A header of 1032 bytes begins as an ONNX model of version 4 would.
        let weights = said("m.safetensors", b"\x08\x04\x00\x00\x00\x00\x00\x00{\"a\":");
        assert!(matches!(weights, Error::NoNetwork { .. }), "{weights}");
        let checkpoint = said("model.ckpt-1.index", b"");
        assert!(matches!(checkpoint, Error::NoNetwork { .. }), "{checkpoint}");
        let gone = Pretrained::open("no/such.pth", Some("resnet18")).unwrap_err();
        assert_eq!(
            gone.to_string(),
            "no/such.pth does not exist: name a file with weights, a folder with config.json and the weights, or \
             hf:OWNER/NAME of the hub"
        );
    }
}
