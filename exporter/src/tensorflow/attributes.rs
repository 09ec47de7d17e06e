//! Values of attributes.

use tallow_tensorflow::proto::attr_value::Value;
use tallow_tensorflow::proto::{AttrValue, DataType, ListValue, TensorProto, TensorShape};

/// An attribute's name and value.
pub(super) type Attribute = (&'static str, AttrValue);

fn attribute(name: &'static str, value: Value) -> Attribute {
    (name, AttrValue { value: Some(value) })
}

pub(super) fn dtype(name: &'static str, dtype: DataType) -> Attribute {
    attribute(name, Value::Type(dtype.into()))
}

pub(super) fn dtypes(name: &'static str, dtypes: impl IntoIterator<Item = DataType>) -> Attribute {
    let r#type = dtypes.into_iter().map(i32::from).collect();
    attribute(name, Value::List(ListValue { r#type, ..Default::default() }))
}

/// The attribute `T`.
pub(super) fn t(dtype: DataType) -> Attribute {
    self::dtype("T", dtype)
}

pub(super) fn int(name: &'static str, value: usize) -> Attribute {
    attribute(name, Value::I(value as i64))
}

pub(super) fn float(name: &'static str, value: f64) -> Attribute {
    attribute(name, Value::F(value as f32))
}

pub(super) fn boolean(name: &'static str, value: bool) -> Attribute {
    attribute(name, Value::B(value))
}

pub(super) fn string(name: &'static str, value: &str) -> Attribute {
    attribute(name, Value::S(value.into()))
}

pub(super) fn shape(name: &'static str, shape: TensorShape) -> Attribute {
    attribute(name, Value::Shape(shape))
}

pub(super) fn tensor(name: &'static str, tensor: TensorProto) -> Attribute {
    attribute(name, Value::Tensor(tensor))
}

/// Both spatial values of a pair [height, width], 1 for the batch and the channels.
pub(super) fn spatial(name: &'static str, [height, width]: [usize; 2]) -> Attribute {
    let i = vec![1, height as i64, width as i64, 1];
    attribute(name, Value::List(ListValue { i, ..Default::default() }))
}

/// A scalar.
pub(super) fn scalar(value: f32) -> TensorProto {
    let shape = Some(TensorShape::default());
    TensorProto {
        dtype: DataType::Float.into(),
        tensor_shape: shape,
        float_val: vec![value],
        ..Default::default()
    }
}

/// Zeros of any shape, in a few bytes: the last element repeats.
pub(super) fn zeros(dtype: DataType, shape: TensorShape) -> TensorProto {
    let tensor = TensorProto { dtype: dtype.into(), tensor_shape: Some(shape), ..Default::default() };
    match dtype {
        DataType::Float => TensorProto { float_val: vec![0.0], ..tensor },
        _ => TensorProto { int64_val: vec![0], ..tensor },
    }
}

/// A tensor of 32-bit integers.
pub(super) fn integers(dims: &[usize], values: &[i32]) -> TensorProto {
    TensorProto {
        dtype: DataType::Int32.into(),
        tensor_shape: Some(TensorShape::of(dims.iter().map(|&dim| dim as i64))),
        tensor_content: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..Default::default()
    }
}

/// A string, or a vector of them.
pub(super) fn strings(dims: &[usize], values: impl IntoIterator<Item = String>) -> TensorProto {
    TensorProto {
        dtype: DataType::String.into(),
        tensor_shape: Some(TensorShape::of(dims.iter().map(|&dim| dim as i64))),
        string_val: values.into_iter().map(String::into_bytes).collect(),
        ..Default::default()
    }
}
