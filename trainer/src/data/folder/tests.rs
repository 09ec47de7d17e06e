use tempfile::TempDir;

use image::RgbImage;

use super::*;

/// A folder with the given files; images are 2x2 PNGs in spite of their names, which only the decoder looks at.
fn folder(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            let image = RgbImage::from_pixel(2, 2, image::Rgb([7, 8, 9]));
            image.save_with_format(&path, image::ImageFormat::Png).unwrap();
        }
    }
    root
}

fn open_error(files: &[&str]) -> (String, String) {
    let root = folder(files);
    let error = open(root.path(), SplitOptions::default()).err().unwrap().to_string();
    assert!(!error.contains('\n'), "{error}");
    (error, root.path().display().to_string())
}

fn contents(set: &dyn Dataset) -> Vec<(String, u32)> {
    (0..set.len())
        .map(|i| {
            (
                Path::new(&set.origin(i)).file_name().unwrap().to_str().unwrap().to_string(),
                set.load(i).unwrap().label,
            )
        })
        .collect()
}

#[test]
fn classes_are_sorted_and_hidden_or_foreign_files_ignored() {
    let root = folder(&[
        "train/cat/b.JPG",
        "train/cat/deep/er/a.WebP",
        "train/cat/.hidden.png",
        "train/cat/notes.txt",
        "train/Ant/x.jpeg",
        "train/.DS_Store",
        "train/bee/y.Bmp",
        "train/bee/.cache/z.png",
        "train/readme.md",
        "val/cat/1.png",
        "val/Ant/2.png",
        "val/bee/3.png",
    ]);
    let splits = open(root.path(), SplitOptions::default()).unwrap();
    assert_eq!(splits.train.classes(), ["Ant", "bee", "cat"]);
    let expected = [("x.jpeg", 0), ("y.Bmp", 1), ("b.JPG", 2), ("a.WebP", 2)];
    assert_eq!(contents(&*splits.train), expected.map(|(name, label)| (name.to_string(), label)));
    assert_eq!(contents(&*splits.validation).len(), 3);
    assert_eq!(splits.train.load(2).unwrap().image.get_pixel(1, 1).0, [7, 8, 9]);
}

#[test]
fn without_a_validation_folder_some_of_each_class_is_held_out() {
    for prefix in ["", "train/"] {
        let files: Vec<String> =
            (0..10).flat_map(|i| ["a", "b"].map(|c| format!("{prefix}{c}/{i}.png"))).collect();
        let root = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let splits = open(root.path(), SplitOptions { fraction: 0.3, seed: 1, fold: None }).unwrap();
        assert_eq!((splits.train.len(), splits.validation.len()), (14, 6));
    }
}

#[test]
fn flat_validation_images_have_their_classes_in_a_file() {
    let train = ["train/a/1.png", "train/b/1.png", "train/c/1.png"];
    let root = folder(&[&train[..], &["val/x.png", "val/y.png", "val/z.png"]].concat());
    let flat = root.path().join(FLAT_LABELS);
    let refused = open(root.path(), SplitOptions::default()).err().unwrap().to_string();
    assert!(refused.contains("images without class folders") && refused.contains(FLAT_LABELS), "{refused}");
    fs::write(&flat, "c\na\nc\n").unwrap();
    let expected = [("x.png", 2), ("y.png", 0), ("z.png", 2)].map(|(name, label)| (name.to_owned(), label));
    let splits = open(root.path(), SplitOptions::default()).unwrap();
    assert_eq!(contents(&*splits.validation), expected);
    let measured = open_validation(root.path(), SplitOptions::default()).unwrap();
    assert_eq!((contents(&*measured), measured.classes()), (expected.to_vec(), splits.train.classes()));
    fs::write(&flat, "c\nA\nc\n").unwrap();
    let refused = open_validation(root.path(), SplitOptions::default()).err().unwrap().to_string();
    assert!(refused.contains("line 2: the class A has no training images (did you mean a?)"), "{refused}");
}

#[cfg(unix)]
#[test]
fn a_class_name_of_two_lines_is_refused() {
    let (error, root) = open_error(&["a/1.png", "b\nc/1.png"]);
    assert!(
        error.contains(&format!("{root}/b\\nc has a line break")) && error.contains("rename it"),
        "{error}"
    );
}

#[test]
fn a_class_may_be_called_test() {
    let root = folder(&["test/1.png", "test/2.png", "production/1.png", "production/2.png"]);
    assert_eq!(open(root.path(), SplitOptions::default()).unwrap().train.classes(), ["production", "test"]);
}

#[test]
fn each_wrong_layout_is_one_clear_message() {
    let missing = open("no/such/place", SplitOptions::default()).err().unwrap().to_string();
    assert!(missing.starts_with("no such folder: no/such/place"), "{missing}");

    let (error, root) = open_error(&["a.png"]);
    assert!(error.starts_with(&format!("no class folders in {root}")), "{error}");

    let (error, root) = open_error(&["train/a/1.png", "train/b/c/"]);
    assert!(error.starts_with(&format!("no images in the class folder {root}/train/b: add jpg,")), "{error}");

    let (error, _) = open_error(&["a/1.png", "b/1.gif", "b/x", "b/2.gif"]);
    assert!(error.contains("(3 files of other types: .gif, none)"), "{error}");

    let (error, _) = open_error(&["train/a/1.png"]);
    assert!(error.starts_with("only one class (a)"), "{error}");

    let (error, _) =
        open_error(&["train/a/1.png", "train/b/1.png", "validation/b/1.png", "validation/c/1.png"]);
    assert!(error.contains("only in training: a; only in validation: c"), "{error}");

    let (error, root) = open_error(&["val/a/1.png", "val/b/1.png"]);
    assert!(error.starts_with(&format!("{root} has val/ but no train/")), "{error}");
}

#[test]
fn broken_files_are_errors_with_path_and_reason() {
    let root = folder(&["a/good.png", "b/good.png"]);
    let whole = fs::read(root.path().join("a/good.png")).unwrap();
    fs::write(root.path().join("a/cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(root.path().join("a/empty.jpg"), b"").unwrap();
    fs::write(root.path().join("a/text.jpg"), b"not an image at all").unwrap();
    let set = ImageFolder::open(root.path()).unwrap();
    let mut reasons = Vec::new();
    for index in 0..set.len() {
        match set.load(index) {
            Ok(_) => assert!(set.origin(index).ends_with("good.png")),
            Err(Error::Image { origin, reason }) => {
                assert_eq!(origin, set.origin(index));
                reasons.push(reason);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(reasons.len(), 3, "{reasons:?}");
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_to_a_parent_does_not_loop_and_a_dangling_one_is_a_broken_image() {
    let root = folder(&["a/1.png", "b/1.png"]);
    std::os::unix::fs::symlink(root.path().join("a"), root.path().join("a/again")).unwrap();
    std::os::unix::fs::symlink(root.path().join("gone.png"), root.path().join("b/2.png")).unwrap();
    let set = ImageFolder::open(root.path()).unwrap();
    assert_eq!(set.len(), 3);
    assert!(matches!(set.load(2), Err(Error::Image { .. })));
}
