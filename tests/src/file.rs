//! An `.onnx` file taken apart: its nodes, and its weights, also those that lie in files beside it.

use std::path::{Component, Path};

use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
use candle_onnx::onnx::{ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use prost::Message;
use tallow_runtime::ModelInfo;

use crate::error::Error;

/// A file that is to be verified.
pub(crate) struct OnnxFile {
    /// What serving knows of it.
    pub(crate) info: ModelInfo,
    /// All of it, weights included.
    pub(crate) model: ModelProto,
}

impl OnnxFile {
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let unreadable = |source| Error::Read { file: name.clone(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let info = ModelInfo::parse(&name, &bytes)?;
        let wrong = |problem: String| Error::File { file: name.clone(), problem };
        let mut model = ModelProto::decode(bytes.as_slice()).map_err(|e| wrong(e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            take_in(tensor, folder).map_err(wrong)?;
        }
        Ok(Self { info, model })
    }

    pub(crate) fn nodes(&self) -> &[NodeProto] {
        self.model.graph.as_ref().map_or(&[], |graph| &graph.node)
    }

    /// The value that the node called `name` gives; a layer's node is called as the layer is.
    pub(crate) fn value_of(&self, name: &str) -> Option<&str> {
        let node = self.nodes().iter().rev().find(|node| node.name == name)?;
        node.output.first().map(String::as_str)
    }

    /// The outputs that no engine gives here, for they are not float32: names with types.
    pub(crate) fn other_outputs(&self) -> Vec<String> {
        let served = |name: &str| self.info.outputs.iter().any(|output| output.name == name);
        let outputs = self.model.graph.iter().flat_map(|graph| &graph.output);
        outputs.filter(|output| !served(&output.name)).map(described).collect()
    }

    pub(crate) fn output_names(&self) -> Vec<String> {
        self.info.outputs.iter().map(|output| output.name.clone()).collect()
    }
}

/// An output with its type, in words.
fn described(output: &ValueInfoProto) -> String {
    let code = match output.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => DataType::try_from(tensor.elem_type).ok(),
        _ => None,
    };
    let kind = code.map_or("no tensor".into(), |code| code.as_str_name().to_lowercase());
    format!("`{}` ({kind})", output.name)
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == i32::from(DataLocation::External)
}

/// Reads a tensor's values in that lie in a file of `folder`, so that a copy of the model needs no other file.
fn take_in(tensor: &mut TensorProto, folder: &Path) -> Result<(), String> {
    if !is_external(tensor) {
        return Ok(());
    }
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| -> Result<Option<usize>, String> {
        let wrong = |_| format!("the {key} of weight `{}` is no number: export the model again", tensor.name);
        entry(key).map(|text| text.parse().map_err(wrong)).transpose()
    };
    let location = Path::new(entry("location").unwrap_or_default());
    // The format's rule: a path below the model's folder.
    if !location.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("the weight `{}` lies outside of the model's folder", tensor.name));
    }
    let path = folder.join(location);
    let bytes = std::fs::read(&path)
        .map_err(|e| format!("the weight `{}` lies in {}: {e}", tensor.name, path.display()))?;
    let start = number("offset")?.unwrap_or(0);
    let end = number("length")?.map_or(Some(bytes.len()), |length| start.checked_add(length));
    let values = end.and_then(|end| bytes.get(start..end)).ok_or_else(|| {
        format!("the weight `{}` lies beyond the end of {}: copy it again", tensor.name, path.display())
    })?;
    tensor.raw_data = values.to_vec();
    tensor.external_data.clear();
    tensor.data_location = DataLocation::Default.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_onnx::onnx::{StringStringEntryProto, TypeProto};

    use super::*;

    fn external(location: &str, offset: &str, length: &str) -> TensorProto {
        let entries = [("location", location), ("offset", offset), ("length", length)];
        let entry =
            |(key, value): (&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
        TensorProto {
            name: "w".into(),
            external_data: entries.map(entry).into(),
            data_location: DataLocation::External.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_output_is_told_with_its_type() {
        let tensor = type_proto::Tensor { elem_type: DataType::Int64.into(), shape: None };
        let value = Some(type_proto::Value::TensorType(tensor));
        let r#type = Some(TypeProto { denotation: String::new(), value });
        let output = ValueInfoProto { name: "class".into(), r#type, doc_string: String::new() };
        assert_eq!(described(&output), "`class` (int64)");
        assert_eq!(described(&ValueInfoProto { r#type: None, ..output }), "`class` (no tensor)");
    }

    #[test]
    fn weights_beside_the_file_are_taken_in() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.data"), b"abcdefgh").unwrap();
        let mut tensor = external("m.data", "2", "4");
        take_in(&mut tensor, folder.path()).unwrap();
        assert_eq!(tensor.raw_data, b"cdef");
        assert!(!is_external(&tensor) && tensor.external_data.is_empty());
        for (location, offset, length, says) in [
            ("m.data", "6", "4", "beyond the end"),
            ("m.data", "x", "4", "no number"),
            ("other", "0", "4", "`w` lies in"),
            ("../m.data", "0", "4", "outside"),
        ] {
            let text = take_in(&mut external(location, offset, length), folder.path()).unwrap_err();
            assert!(text.contains(says), "{text}");
        }
    }
}
