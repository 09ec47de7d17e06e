//! tract: pure Rust, always there. One optimised plan for each batch size, because a plan with a symbolic
//! batch is two to four times slower.
//! Plans are built on first use and a few are kept; runs share a plan without waiting for each other.

mod activations;
mod registers;
mod widen;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ndarray::ArrayD;
use tallow_input::Dtype;
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

use super::{Engine, EngineKind, EngineOptions};
use crate::batch::{Batch, Element};
use crate::error::{RuntimeError, one_line};
use crate::network::ModelSource;
use crate::onnx::ModelInfo;

/// tract's version, as the lock file has it.
pub(crate) const VERSION: &str = "0.23.9";

/// Plans kept at a time. A server meets few batch sizes: the full one and the rests.
const PLANS_KEPT: usize = 8;

type Plan = Arc<TypedRunnableModel>;
type Shape = [usize; 4];
/// Filled by the first thread that needs it; others that need it wait, those of other shapes do not.
type Slot = Arc<OnceLock<Result<Plan, String>>>;

pub(crate) struct TractEngine {
    file: String,
    model: InferenceModel,
    executor: Executor,
    element: Element,
    dtype: Dtype,
    /// Most recently used last.
    plans: Mutex<Vec<(Shape, Slot)>>,
}

impl TractEngine {
    pub(crate) fn load(
        info: &ModelInfo,
        source: &ModelSource,
        options: &EngineOptions,
    ) -> Result<TractEngine, RuntimeError> {
        let refused = |e: &dyn std::fmt::Display| RuntimeError::Engine {
            engine: EngineKind::Tract,
            file: info.file.clone(),
            action: "load",
            reason: one_line(e),
        };
        // Shapes noted for inner values may name the batch axis, which a concrete batch would contradict.
        let reader = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let model = guarded(|| {
            let mut model = match (source, info.dtype) {
                (ModelSource::File(path), Dtype::F32) => reader.model_for_path(path),
                (ModelSource::Bytes(bytes), Dtype::F32) => reader.model_for_read(&mut &bytes[..]),
                (_, Dtype::F16) => {
                    let mut proto = match source {
                        ModelSource::File(path) => reader.proto_model_for_path(path),
                        ModelSource::Bytes(bytes) => reader.proto_model_for_read(&mut &bytes[..]),
                    }?;
                    widen::widen(&mut proto).map_err(TractError::msg)?;
                    reader.model_for_proto_model(&proto)
                }
            }?;
            model.select_outputs_by_name(info.outputs.iter().map(|output| output.name.as_str()))?;
            Ok(model)
        })
        .map_err(|reason| refused(&reason))?;
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let executor = match options.threads.unwrap_or_else(cores) {
            0 | 1 => Executor::SingleThread,
            threads => Executor::multithread(threads),
        };
        let (file, element, dtype) = (info.file.clone(), info.element, info.dtype);
        let engine = TractEngine { file, model, executor, element, dtype, plans: Mutex::new(Vec::new()) };
        // What tract cannot run shows when a plan is made, so one is made now, where the shape is known.
        if let Some([batch, channels, height, width]) = info.input.dims.as_deref()
            && let (Some(c), Some(h), Some(w)) = (channels.fixed(), height.fixed(), width.fixed())
        {
            engine.plan([batch.fixed().unwrap_or(1), c, h, w]).map_err(|reason| refused(&reason))?;
        }
        Ok(engine)
    }

    /// The plan for an input's shape, made if it is not kept.
    fn plan(&self, shape: Shape) -> Result<Plan, String> {
        let slot = {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            let known = plans.iter().position(|(kept, _)| *kept == shape);
            let entry = match known {
                Some(at) => plans.remove(at),
                None => (shape, Slot::default()),
            };
            let slot = entry.1.clone();
            plans.push(entry);
            if plans.len() > PLANS_KEPT {
                plans.remove(0);
            }
            slot
        };
        slot.get_or_init(|| guarded(|| self.build(shape))).clone()
    }

    fn build(&self, shape: Shape) -> TractResult<Plan> {
        let fact = match self.element {
            Element::Float => f32::fact(shape),
            Element::Byte => u8::fact(shape),
        };
        let model = self.model.clone().with_input_fact(0, fact.into())?;
        let mut model = model.into_typed()?.into_decluttered()?;
        activations::replace(&mut model);
        model.into_optimized()?.into_runnable()
    }

    fn run_plan(&self, plan: &Plan, input: Batch<'_>) -> TractResult<Vec<ArrayD<f32>>> {
        let shape = input.shape();
        let tensor = match input {
            Batch::Floats(images) => {
                Tensor::from_shape(&shape, images.as_standard_layout().as_slice().unwrap_or_default())?
            }
            Batch::Pixels(images) => {
                Tensor::from_shape(&shape, images.as_standard_layout().as_slice().unwrap_or_default())?
            }
        };
        let results =
            multithread_tract_scope(self.executor.clone(), || plan.run(tvec!(tensor.into_tvalue())))?;
        results.iter().map(|value| Ok(value.to_plain_array_view::<f32>()?.to_owned())).collect()
    }
}

impl Engine for TractEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Tract
    }

    fn version(&self) -> String {
        format!("tract {VERSION}")
    }

    fn description(&self) -> String {
        let widened = if self.dtype == Dtype::F16 { ", the file's float16 weights in float32" } else { "" };
        format!("{} on CPU{widened}", self.version())
    }

    fn run(&self, input: Batch<'_>) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        let failed = |reason: String| RuntimeError::Engine {
            engine: EngineKind::Tract,
            file: self.file.clone(),
            action: "run",
            reason,
        };
        let plan = self.plan(input.shape()).map_err(failed)?;
        guarded(|| self.run_plan(&plan, input)).map_err(failed)
    }
}

/// Runs a step of tract's; its errors, and the panics with which it meets some malformed graphs, become a text.
fn guarded<T>(step: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    let ended = catch_unwind(AssertUnwindSafe(step));
    // Else what the caller does next, such as reading photos, takes many times as long.
    registers::free_upper_parts();
    match ended {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(one_line(format!("{error:#}"))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(one_line(format!("tract gave up: {text}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_told_is_the_version_locked() {
        let lock = include_str!("../../../../Cargo.lock");
        let entry = lock.split("[[package]]").find(|p| p.contains("name = \"tract-onnx\"\n")).unwrap();
        assert!(entry.contains(&format!("version = \"{}\"", super::VERSION)), "{entry}");
    }
}
