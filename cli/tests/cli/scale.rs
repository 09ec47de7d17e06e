//! `tallow scale`: the law's tables, and the networks that it says are built.

use std::path::Path;

use crate::support::typed;

#[test]
fn the_published_networks_have_torchvisions_costs() {
    let json = typed(Path::new("."), "scale --json").json();
    let published = json["published"].as_array().unwrap();
    // Counted with PyTorch on torchvision's networks, at the paper's resolutions.
    for (nth, parameters, macs) in
        [(0, 5_288_548u64, 385_814_752u64), (3, 12_233_232, 1_827_141_392), (7, 66_347_960, 37_745_884_192)]
    {
        let network = &published[nth];
        assert_eq!(network["name"], format!("efficientnet_b{nth}"));
        assert_eq!((&network["parameters"], &network["macs"]), (&parameters.into(), &macs.into()));
    }
    let scaled = json["scaled"].as_array().unwrap();
    assert_eq!(scaled.len(), 8);
    // φ = 1 has B2's depth and width, at 256 pixels instead of 260.
    assert_eq!((&scaled[1]["parameters"], &scaled[1]["resolution"]), (&9_109_994.into(), &256.into()));
    let growth = json["growth"].as_f64().unwrap();
    assert!((growth - 1.92027).abs() < 1e-9);
    for one in scaled {
        let [phi, law, predicted] = ["phi", "law", "predicted_ratio"].map(|key| one[key].as_f64().unwrap());
        assert_eq!(law, phi.exp2());
        assert!((predicted - growth.powf(phi)).abs() < 1e-9);
    }
}

#[test]
fn what_is_printed_can_be_built_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let json = typed(folder.path(), "scale resnet18 --phi 2 --classes 10 --plot law.png --json").json();
    let one = &json["scaled"][0];
    let [width, depth] = ["width", "depth"].map(|key| one[key].as_f64().unwrap());
    let line = format!(
        "summary resnet18 --classes 10 --size {} --width {width} --depth {depth} --json",
        one["resolution"]
    );
    assert_eq!(typed(folder.path(), &line).json()["totals"]["macs"], one["macs"]);
    assert!(image::open(folder.path().join("law.png")).unwrap().width() > 1000);
    let table = typed(folder.path(), "scale resnet18 --phi 2").ok();
    assert!(table.contains("layer4") && table.contains("FLOPs are twice as many"), "{table}");
}

#[test]
fn what_is_no_growth_is_refused() {
    let here = Path::new(".");
    typed(here, "scale --alpha 0.9").fails(2, &["--alpha must lie in 1 to 4, is 0.9"]);
    typed(here, "scale --gamma nan").fails(2, &["--gamma"]);
    typed(here, "scale --phi 40").fails(2, &["--phi must lie in -16 to 16, is 40"]);
    typed(here, "scale --phi 15 --beta 2").fails(2, &["width factor must be above 0 and at most 16"]);
    typed(here, "scale resnet19").fails(2, &["did you mean `resnet18`"]);
}

#[test]
fn a_settings_file_names_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let text = "model = \"efficientnet_b0\"\n[input]\nsize = 32\n[network]\nwiden = 0.5\nstem = 16\nhead = 64\n\
                [[network.stages]]\nkernel = 3\nexpand = 2\nchannels = 16\nrepeats = 2\n";
    std::fs::write(folder.path().join("best.toml"), text).unwrap();
    let at = folder.path();
    let base = typed(at, "summary --config best.toml --classes 10 --json").json();
    assert_eq!(base["input"], serde_json::json!([3, 32, 32]));
    let scaled = typed(at, "scale --config best.toml --classes 10 --phi 0,1 --json").json();
    assert_eq!(scaled["scaled"][0]["macs"], base["totals"]["macs"]);
    assert_eq!(scaled["published"], serde_json::json!([]));
    // The printed factors are those of the zoo's network, which flags replace.
    let one = &scaled["scaled"][1];
    let [width, depth, size] = ["width", "depth", "resolution"].map(|key| one[key].to_string());
    let line = format!(
        "summary --config best.toml --classes 10 --width {width} --depth {depth} --size {size} --json"
    );
    assert_eq!(typed(at, &line).json()["totals"]["macs"], one["macs"]);
    let bench = typed(at, "bench --config best.toml --batch 2 --seconds 0 --json").json();
    assert_eq!((&bench[0]["engine"], &bench[0]["batch"]), (&"candle".into(), &2.into()));
    typed(at, "scale resnet18 --config best.toml").fails(2, &["leave out either --config or the network"]);
    typed(at, "scale resnet18 --size 20x30").fails(2, &["square images"]);
    typed(at, "summary --config none.toml").fails(1, &["none.toml"]);
    typed(at, "summary --classes 3").fails(2, &["name the network"]);
}
