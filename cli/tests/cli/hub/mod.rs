//! `--weights hf:…`: a repository of the Hugging Face hub, here a server of the test's own that answers as the hub does.

mod server;

use std::path::Path;

use candle_core::Device;
use tallow_builder::Weights;
use tallow_models::{Options, build};

use crate::support::{Run, command, picture};
use server::{COMMIT, Content, Hub, REPOSITORY, sha256};

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

/// A hub with one repository.
fn content(folder: &Path) -> Content {
    let files = [("config.json", config().into_bytes()), ("model.safetensors", weights(folder))];
    let files = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    Content { files, ..Content::default() }
}

/// The binary with a cache of its own, at this hub.
fn tallow(folder: &Path, endpoint: &str, line: &str) -> Run {
    with(folder, endpoint, &[], line)
}

/// As [`tallow`], with variables of the environment.
fn with(folder: &Path, endpoint: &str, variables: &[(&str, &str)], line: &str) -> Run {
    let mut command = command(folder);
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"] {
        command.env_remove(name);
    }
    command.env("HF_HOME", folder.join("hub")).env("HF_ENDPOINT", endpoint).envs(variables.iter().copied());
    command.args(line.split_whitespace()).output().unwrap().into()
}

#[test]
fn weights_come_from_the_hub_once_with_what_they_were_trained_with() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let hub = Hub::serve(content(at));
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png --engine tract --json");
    let run = tallow(at, &hub.address, &predict);
    for said in ["downloading config.json", "downloading model.safetensors (", REPOSITORY] {
        assert!(run.err.contains(said), "{run:#?}");
    }
    let json = run.json();
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
    let mut bare = content(at);
    bare.files.remove("model.safetensors");
    let hub = Hub::serve(bare);
    tallow(at, &hub.address, &predict("timm/absent"))
        .fails(1, &["hf:timm/absent", "config.json", "HTTP 404"]);
    tallow(at, &hub.address, &predict(REPOSITORY))
        .fails(1, &["has no model.safetensors or pytorch_model.bin", "HTTP 404"]);
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
        (
            r#"{"architecture": "resnet18", "model_args": {"output_stride": 8, "in_chans": 3}}"#,
            "another network than timm/resnet18 of it (output_stride = 8)",
        ),
        (
            r#"{"architecture": "resnet18", "num_classes": 2, "model_args": {"num_classes": 3, "act_layer": "silu"}}"#,
            r#"(act_layer = "silu", num_classes = 3)"#,
        ),
        (r#"{"architecture": "resnet18"}"#, "safetensors"),
        ("{", "as timm writes it"),
    ] {
        std::fs::write(at.join("placed/config.json"), text).unwrap();
        tallow(at, &hub.address, "predict --weights placed photo.png").fails(1, &["placed", said]);
    }
}

/// A folder with a description of weights and the weights, for predict.
fn placed(at: &Path, change: impl FnOnce(&mut serde_json::Value)) -> Run {
    std::fs::create_dir_all(at.join("placed")).unwrap();
    std::fs::write(at.join("placed/model.safetensors"), weights(at)).unwrap();
    let mut config = serde_json::from_str(&config()).unwrap();
    change(&mut config);
    std::fs::write(at.join("placed/config.json"), config.to_string()).unwrap();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    tallow(at, "http://127.0.0.1:1", "predict --weights placed photo.png --engine tract --json")
}

#[test]
fn arguments_that_leave_the_network_as_it_is_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let json = placed(at, |_| {}).json();
    // As timm 1.0.31 writes it for every network.
    for arguments in [
        serde_json::json!({}),
        serde_json::json!({ "in_chans": 3, "num_classes": 3, "global_pool": "avg", "drop_rate": 0.2, "bn_eps": null }),
    ] {
        assert_eq!(placed(at, |config| config["model_args"] = arguments).json(), json);
    }
}

#[test]
fn a_token_says_who_asks_and_refusals_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png --engine tract");
    let private = Content { token: Some("hf_secret"), refusal: Some((401, "RepoNotFound")), ..content(at) };
    let hub = Hub::serve(private);
    let unknown = ["does not exist", "private or gated", "set HF_TOKEN to a token that may read it"];
    tallow(at, &hub.address, &predict).fails(1, &unknown);
    let wrong = with(at, &hub.address, &[("HF_TOKEN", "hf_wrong")], &predict);
    wrong.fails(1, &["HTTP 401", "the one in use may not"]);
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        with(at, &hub.address, &[(variable, "hf_secret")], &predict).ok();
        std::fs::remove_dir_all(at.join("hub")).unwrap();
    }
    std::fs::create_dir(at.join("hub")).unwrap();
    std::fs::write(at.join("hub/token"), "hf_secret\n").unwrap();
    tallow(at, &hub.address, &predict).ok();

    std::fs::remove_dir_all(at.join("hub")).unwrap();
    for (status, reason, said) in [
        (403, "GatedRepo", "is gated (HTTP 403): accept its conditions"),
        (401, "", "does not exist"),
        (404, "RepoNotFound", "does not exist"),
        (404, "RevisionNotFound", "has no revision `main`"),
        (404, "EntryNotFound", "has no config.json there"),
        (503, "", "cannot be reached (HTTP 503)"),
    ] {
        let hub = Hub::serve(Content { refusal: Some((status, reason)), ..Content::default() });
        tallow(at, &hub.address, &predict).fails(1, &[&format!("hf:{REPOSITORY}"), said]);
    }
}

#[test]
fn what_comes_damaged_is_deleted_and_what_is_damaged_later_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png --engine tract");
    let hub = Hub::serve(Content { damages: true, ..content(at) });
    let sum = sha256(&content(at).files["model.safetensors"]);
    tallow(at, &hub.address, &predict)
        .fails(1, &["model.safetensors came damaged", &format!("should be {sum}"), "was deleted: try again"]);
    let blobs = at.join("hub/hub/models--timm--tf_efficientnet_lite0.in1k/blobs");
    assert!(!blobs.join(&sum).exists() && !blobs.join(format!("{sum}.part")).exists());
    let hub = Hub::serve(content(at));
    tallow(at, &hub.address, &predict).ok();

    let blob = blobs.join(&sum);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let blob = std::fs::canonicalize(blob).unwrap();
    let parts = ["is damaged", &blob.display().to_string(), "delete it, and it is downloaded again"];
    tallow(at, &hub.address, &predict).fails(1, &parts);
    std::fs::remove_file(&blob).unwrap();
    tallow(at, &hub.address, &predict).ok();
    // Deleting what stands for it is as good, even if the blob itself is damaged.
    std::fs::write(&blob, "no tensors").unwrap();
    let snapshot = at.join(format!("hub/hub/models--timm--tf_efficientnet_lite0.in1k/snapshots/{COMMIT}"));
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    tallow(at, &hub.address, &predict).ok();
}

#[test]
fn a_download_that_stops_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png --engine tract");
    let hub = Hub::serve(Content { breaks_off: Some(300_000), ..content(at) });
    tallow(at, &hub.address, &predict).fails(1, &["model.safetensors stopped coming", "goes on from there"]);
    tallow(at, &hub.address, &predict).ok();
    let rest = hub.requests().pop().unwrap();
    assert_eq!(rest, "GET /elsewhere/model.safetensors 300000");
}

#[test]
fn a_hub_that_says_nothing_is_waited_for_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    picture(0, 1).save(at.join("photo.png")).unwrap();
    let predict = format!("predict --weights hf:{REPOSITORY} photo.png");
    for hangs in ["config.json", "elsewhere"] {
        let hub = Hub::serve(Content { hangs: Some(hangs), ..content(at) });
        let start = std::time::Instant::now();
        with(at, &hub.address, &[("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")], &predict)
            .fails(1, &["it said nothing for 0.5 s", "HF_HUB_DOWNLOAD_TIMEOUT"]);
        assert!(start.elapsed().as_secs() < 30);
    }
    let hub = Hub::serve(Content { stalls: Some(300_000), ..content(at) });
    with(at, &hub.address, &[("HF_HUB_DOWNLOAD_TIMEOUT", "0.5")], &predict)
        .fails(1, &["model.safetensors stopped coming", "it said nothing for 0.5 s", "goes on from there"]);
    for wrong in ["soon", "0", "-1", "inf"] {
        with(at, "http://127.0.0.1:1", &[("HF_HUB_DOWNLOAD_TIMEOUT", wrong)], &predict)
            .fails(2, &["HF_HUB_DOWNLOAD_TIMEOUT", wrong, "seconds"]);
    }
}
