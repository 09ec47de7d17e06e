//! `--weights hf:…`: a repository of the Hugging Face hub, here a server of the test's own that answers as the hub does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use tallow_builder::Weights;
use tallow_models::{Options, build};

use crate::support::{Run, command, picture};

const REPOSITORY: &str = "timm/tf_efficientnet_lite0.in1k";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub: `/<owner>/<name>/resolve/<revision>/<file>`, ranges, and the headers that name commit and content.
struct Hub {
    address: String,
}

impl Hub {
    fn serve(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = Arc::new(files);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let files = files.clone();
                // A client that goes away is no concern of the server's.
                std::thread::spawn(move || drop(answer(stream, &files)));
            }
        });
        Self { address }
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut first = 0;
        let mut last = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(range) = header.strip_prefix("range: bytes=") {
                let (from, to) = range.split_once('-').unwrap_or((range, ""));
                first = from.parse().unwrap_or(0);
                last = to.parse().ok();
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let file = path.trim_start_matches('/').replace(&format!("{REPOSITORY}/resolve/main/"), "");
        let Some(bytes) = files.get(&file) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let last = last.unwrap_or(usize::MAX).min(bytes.len() - 1);
        let part = &bytes[first.min(bytes.len())..=last];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nx-repo-commit: {COMMIT}\r\netag: \"{file}-1\"\r\naccept-ranges: bytes\r\n\
             content-length: {}\r\ncontent-range: bytes {first}-{last}/{}\r\n\r\n",
            part.len(),
            bytes.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(part)?;
    }
}

/// The description of weights for three classes, with a preprocessing that no other weights have.
fn config() -> String {
    serde_json::json!({
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 3,
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 0.5, "crop_mode": "center",
            "mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125], "label_names": ["ant", "bee", "cat"],
        },
    })
    .to_string()
}

fn weights(folder: &Path) -> Vec<u8> {
    let graph = build("timm/tf_efficientnet_lite0", &Options::new(3, 64)).unwrap();
    let file = folder.join("made.safetensors");
    Weights::init(&graph, 5, &Device::Cpu).unwrap().save(&file).unwrap();
    std::fs::read(file).unwrap()
}

/// The binary with a cache of its own, at this hub.
fn tallow(folder: &Path, endpoint: &str, line: &str) -> Run {
    let mut command = command(folder);
    command.env("HF_HOME", folder.join("hub")).env("HF_ENDPOINT", endpoint);
    command.args(line.split_whitespace()).output().unwrap().into()
}

#[test]
fn weights_come_from_the_hub_once_with_what_they_were_trained_with() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let files = [("config.json", config().into_bytes()), ("model.safetensors", weights(at))];
    let hub = Hub::serve(files.map(|(name, bytes)| (name.to_owned(), bytes)).into());
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png --engine tract --json");
    let json = tallow(at, &hub.address, &predict).json();
    let labels = ["ant", "bee", "cat"];
    assert!(labels.contains(&json[0]["predictions"][0]["label"].as_str().unwrap()));

    // From here on nothing is downloaded.
    let nowhere = "http://127.0.0.1:1";
    assert_eq!(tallow(at, nowhere, &predict).json(), json);
    tallow(at, nowhere, &format!("export --weights hf:{REPOSITORY} -o model.onnx")).ok();
    let card = tallow_exporter::onnx::read_card(&at.join("model.onnx")).unwrap().unwrap();
    assert_eq!(card.architecture, "timm/tf_efficientnet_lite0");
    assert_eq!((card.preprocess.width, card.preprocess.crop_fraction), (64, 0.5));
    assert_eq!((card.preprocess.mean, card.preprocess.std), ([0.25, 0.5, 0.75], [0.5, 0.25, 0.125]));
    assert_eq!(card.labels, labels);

    // A folder with the repository's files is as good.
    std::fs::create_dir(at.join("placed")).unwrap();
    std::fs::write(at.join("placed/config.json"), config()).unwrap();
    tallow(at, nowhere, "predict --weights placed photo.png")
        .fails(1, &["placed", "model.safetensors", "put one there"]);
    std::fs::copy(at.join("made.safetensors"), at.join("placed/model.safetensors")).unwrap();
    assert_eq!(tallow(at, nowhere, &predict.replace(&format!("hf:{REPOSITORY}"), "placed")).json(), json);
    let other = "predict --model resnet18 --weights placed photo.png";
    tallow(at, nowhere, other).fails(1, &["config.json", "timm/tf_efficientnet_lite0", "not resnet18"]);
}

#[test]
fn what_the_hub_has_not_or_does_not_say_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = |name: &str| format!("predict --weights hf:{name} photo.png");

    let unreachable = tallow(at, "http://127.0.0.1:1", &predict(REPOSITORY));
    unreachable
        .fails(1, &["cannot be reached", "config.json", "model.safetensors", "into a folder", REPOSITORY]);
    let hub = Hub::serve([("config.json".to_owned(), config().into_bytes())].into());
    tallow(at, &hub.address, &predict("timm/absent"))
        .fails(1, &["hf:timm/absent", "config.json", "HTTP 404"]);
    tallow(at, &hub.address, &predict(REPOSITORY)).fails(1, &["model.safetensors", "HTTP 404"]);
    for name in ["timm", "a/b/c", "../../etc", "a/ b", ""] {
        let run: Run = command(at)
            .args(["predict", "--weights", &format!("hf:{name}"), "photo.png"])
            .output()
            .unwrap()
            .into();
        run.fails(2, &["names no repository"]);
    }

    std::fs::create_dir(at.join("placed")).unwrap();
    std::fs::write(at.join("placed/model.safetensors"), "no tensors").unwrap();
    for (text, said) in [
        (r#"{"architecture": "vit_base"}"#, "vit_base, which Tallow has not"),
        (r#"{"architectures": ["ResNet"]}"#, "names no `architecture`"),
        (r#"{"architecture": "resnet18", "pretrained_cfg": {"crop_mode": "squash"}}"#, "`squash`"),
        (r#"{"architecture": "resnet18", "pretrained_cfg": {"interpolation": "lanczos"}}"#, "`lanczos`"),
        (r#"{"architecture": "resnet18", "pretrained_cfg": {"input_size": [1, 8, 8]}}"#, "1 channels"),
        (r#"{"architecture": "resnet18", "pretrained_cfg": {"std": [0, 1, 1]}}"#, "std"),
        (
            r#"{"architecture": "resnet18", "num_classes": 2, "label_names": ["a"]}"#,
            "1 label_names for 2 classes",
        ),
        (r#"{"architecture": "resnet18"}"#, "safetensors"),
        ("{", "as timm writes it"),
    ] {
        std::fs::write(at.join("placed/config.json"), text).unwrap();
        tallow(at, &hub.address, "predict --weights placed photo.png").fails(1, &["placed", said]);
    }
}
