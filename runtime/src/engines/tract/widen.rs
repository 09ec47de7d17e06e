//! A float16 model in float32, for tract: the weights are the file's, and nothing else is rounded. tract 0.23 does not
//! load a float16 Gemm, and where it computes in float16 it adds up in float16, too; on CPUs float32 is also faster.

use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::f16;

const FLOAT16: i32 = DataType::Float16 as i32;
const FLOAT: i32 = DataType::Float as i32;

/// Puts float32 in the place of float16: in weights, constants and casts.
///
/// # Errors
/// A text that names a weight which lies in another file, or is cut short.
pub(super) fn widen(model: &mut ModelProto) -> Result<(), String> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    graph.initializer.iter_mut().try_for_each(widen_tensor)?;
    graph.node.iter_mut().try_for_each(widen_node)
}

fn widen_node(node: &mut NodeProto) -> Result<(), String> {
    for attribute in &mut node.attribute {
        if node.op_type == "Cast" && attribute.name == "to" && attribute.i == i64::from(FLOAT16) {
            attribute.i = i64::from(FLOAT);
        }
        attribute.t.iter_mut().try_for_each(widen_tensor)?;
    }
    Ok(())
}

fn widen_tensor(tensor: &mut TensorProto) -> Result<(), String> {
    if tensor.data_type != FLOAT16 {
        return Ok(());
    }
    if tensor.data_location == Some(DataLocation::External as i32) {
        return Err(format!(
            "its float16 weight `{}` lies in a file beside it, which is not widened",
            tensor.name
        ));
    }
    let elements = tensor.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    // Either has the bits of a float16 for each element.
    let values: Vec<f16> = match tensor.raw_data.is_empty() {
        true => tensor.int32_data.iter().map(|&bits| f16::from_bits(bits as u16)).collect(),
        false => tensor.raw_data.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect(),
    };
    if elements != Some(values.len()) {
        let (name, dims, found) = (&tensor.name, &tensor.dims, values.len());
        return Err(format!("its weight `{name}` has the shape {dims:?} and {found} values"));
    }
    tensor.raw_data = values.iter().flat_map(|value| value.to_f32().to_le_bytes()).collect();
    tensor.int32_data.clear();
    tensor.data_type = FLOAT;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_in_either_field_become_float32_and_a_cut_weight_is_an_error() {
        let half = |raw: Vec<u8>, bits: Vec<i32>| TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: FLOAT16,
            raw_data: raw,
            int32_data: bits,
            ..Default::default()
        };
        let expected: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        for mut tensor in [half(vec![0x00, 0x3e, 0x00, 0xc0], vec![]), half(vec![], vec![0x3e00, 0xc000])] {
            widen_tensor(&mut tensor).unwrap();
            assert_eq!((tensor.data_type, &tensor.raw_data), (FLOAT, &expected));
        }
        let text = widen_tensor(&mut half(vec![0, 0], vec![])).unwrap_err();
        assert_eq!(text, "its weight `w` has the shape [2] and 1 values");
        let external = DataLocation::External as i32;
        let mut beside = TensorProto { data_location: Some(external), ..half(vec![], vec![]) };
        assert!(widen_tensor(&mut beside).unwrap_err().contains("lies in a file beside it"));
    }
}
