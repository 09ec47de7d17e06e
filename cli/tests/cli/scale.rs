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
        "summary resnet18 --classes 10 --size {} --widen {width} --deepen {depth} --json",
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
