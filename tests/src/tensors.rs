//! Arrays as candle's tensors and back.

use candle_core::{Device, Error, Result, Tensor};
use ndarray::{Array4, ArrayD};

pub(crate) fn to_tensor(images: &Array4<f32>) -> Result<Tensor> {
    let values: Vec<f32> = images.iter().copied().collect();
    Tensor::from_vec(values, images.dim(), &Device::Cpu)
}

pub(crate) fn to_array(tensor: &Tensor) -> Result<ArrayD<f32>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    ArrayD::from_shape_vec(tensor.dims(), values).map_err(Error::wrap)
}
