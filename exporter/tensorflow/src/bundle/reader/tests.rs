use super::super::BundleWriter;
use super::*;

fn written(folder: &Path) -> PathBuf {
    let prefix = folder.join("model.ckpt-1");
    let mut bundle = BundleWriter::create(&prefix).unwrap();
    bundle.add_string("_graph", b"some bytes").unwrap();
    bundle.add_f32("empty", &[0, 3], &[]).unwrap();
    bundle.add_i64("global_step", -7).unwrap();
    bundle.add_f32("kernel", &[2, 3], &[1.0, -2.0, 3.5, f32::NAN, 0.0, -0.0]).unwrap();
    bundle.finish().unwrap();
    prefix
}

#[test]
fn what_was_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = BundleReader::open(&written(folder.path())).unwrap();
    let names: Vec<&str> = bundle.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["_graph", "empty", "global_step", "kernel"]);
    let kernel = bundle.read("kernel").unwrap().unwrap();
    assert_eq!((kernel.dtype, &kernel.shape[..]), (DataType::Float, &[2, 3][..]));
    let bits: Vec<u32> = kernel.to_f32().unwrap().into_iter().map(f32::to_bits).collect();
    assert_eq!(bits, [1.0, -2.0, 3.5, f32::NAN, 0.0, -0.0].map(f32::to_bits));
    assert_eq!(bundle.read("empty").unwrap().unwrap().shape, [0, 3]);
    assert_eq!(bundle.read("global_step").unwrap().unwrap().bytes, (-7i64).to_le_bytes());
    assert_eq!(bundle.read_string("_graph").unwrap().unwrap(), b"some bytes");
    assert_eq!(bundle.read("other").unwrap(), None);
    assert!(bundle.read("_graph").unwrap_err().to_string().contains("`_graph` holds String"));
}

#[test]
fn every_flipped_byte_and_every_cut_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = written(folder.path());
    let read_all = || -> Result<()> {
        let bundle = BundleReader::open(&prefix)?;
        bundle.read_string("_graph")?;
        for name in ["empty", "global_step", "kernel"] {
            bundle.read(name)?;
        }
        Ok(())
    };
    let data = data_path(&prefix, 0, 1);
    let sound = fs::read(&data).unwrap();
    // A new file each time: some file systems wait for the disk where one is overwritten.
    let write = |bytes: &[u8]| {
        let _ = fs::remove_file(&data);
        fs::write(&data, bytes).unwrap();
    };
    for i in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[i] ^= 4;
        write(&flipped);
        let text = read_all().unwrap_err().to_string();
        assert!(text.contains("model.ckpt-1."), "{text}");
        write(&sound[..i]);
        assert!(read_all().unwrap_err().to_string().contains("the file is cut short at"));
    }
    fs::remove_file(&data).unwrap();
    let text = read_all().unwrap_err().to_string();
    assert!(text.contains("data-00000-of-00001: missing, and "), "{text}");
}

/// Entries that a sound checksum protects and that are nonsense all the same.
#[test]
fn entries_that_promise_too_much_are_errors_and_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = written(folder.path());
    let sound = BundleReader::open(&prefix).unwrap();
    let absurd = [i64::MIN, -1, 1 << 40, i64::MAX];
    for number in absurd {
        type Change = fn(&mut BundleEntry, i64);
        let changes: [Change; 4] = [
            |entry, number| entry.offset = number,
            |entry, number| entry.size = number,
            |entry, number| entry.shard_id = number as i32 | 1,
            |entry, number| entry.shape.as_mut().unwrap().dim[0].size = number,
        ];
        for change in changes {
            let mut entries = sound.entries.clone();
            change(entries.get_mut(&b"kernel"[..]).unwrap(), number);
            let bundle =
                BundleReader { prefix: prefix.clone(), index: index_path(&prefix), shards: 1, entries };
            bundle.read("kernel").unwrap_err();
        }
    }
}
