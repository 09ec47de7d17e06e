//! Whether weights are numbers that a network can compute with.

use std::collections::BTreeMap;

use candle_core::Tensor;
use tallow_builder::Weights;
use tallow_builder::graph::{Parameter, Role};

use crate::error::{Error, Result};

/// Refuses whole numbers where weights should be, as quantised files have them: read as they are, they mean something
/// else.
pub(crate) fn refuse_integers(
    needed: &[Parameter],
    tensors: &BTreeMap<String, Tensor>,
    origin: &str,
) -> Result<()> {
    let whole =
        needed.iter().filter(|parameter| parameter.role != Role::BatchesTracked).find_map(|parameter| {
            let tensor = tensors.get(&parameter.name).filter(|tensor| !tensor.dtype().is_float())?;
            Some((&parameter.name, tensor.dtype()))
        });
    let Some((name, dtype)) = whole else { return Ok(()) };
    let problem = format!(
        "`{name}` holds whole numbers ({dtype:?}), and weights are floating-point: if they are quantised, give them as \
         they were before"
    );
    Err(Error::Unsound { origin: origin.to_owned(), problem })
}

/// Refuses weights with NaN or infinity among them: whatever they are multiplied with comes out so.
pub(crate) fn refuse_not_finite(weights: &Weights, origin: &str) -> Result<()> {
    let (mut first, mut tensors, mut total) = (None, 0, 0);
    for (name, tensor) in weights.iter().filter(|(_, tensor)| tensor.dtype().is_float()) {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let count = values.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            first.get_or_insert((name, count));
            tensors += 1;
            total += count;
        }
    }
    let Some((name, count)) = first else { return Ok(()) };
    let more = if tensors > 1 { format!(" ({total} in {tensors} tensors)") } else { String::new() };
    let values = if count == 1 { "value that is" } else { "values that are" };
    let problem = format!(
        "`{name}` has {count} {values} NaN or infinite{more}: the file is damaged, or its training diverged; \
         give another copy, or an earlier checkpoint"
    );
    Err(Error::Unsound { origin: origin.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_models::{Options, build};

    use super::*;

    #[test]
    fn the_first_tensor_that_is_not_finite_is_named_and_all_are_counted() {
        let graph = build("resnet18", &Options::new(5, 32)).unwrap();
        let mut weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        refuse_not_finite(&weights, "x.pth").unwrap();
        let broken = |values: [f32; 5]| Tensor::new(&values, &Device::Cpu).unwrap();
        weights.set("fc.bias", broken([0.0, f32::NAN, 1.0, f32::NEG_INFINITY, f32::INFINITY]));
        let text = refuse_not_finite(&weights, "x.pth").unwrap_err().to_string();
        assert!(text.starts_with("x.pth: `fc.bias` has 3 values that are NaN or infinite: "), "{text}");
        let shape = weights.get("bn1.weight").shape().clone();
        let huge = Tensor::full(f32::INFINITY, shape, &Device::Cpu).unwrap();
        weights.set("bn1.weight", huge);
        let text = refuse_not_finite(&weights, "x.pth").unwrap_err().to_string();
        let said = "x.pth: `bn1.weight` has 64 values that are NaN or infinite (67 in 2 tensors): ";
        assert!(text.starts_with(said), "{text}");
    }
}
