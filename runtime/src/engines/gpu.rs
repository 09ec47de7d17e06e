//! Options of the engines that run on a GPU. What an engine does not take is an error, never passed over.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::EngineKind;
use crate::error::RuntimeError;

/// How cuDNN chooses the algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConvSearch {
    /// Measures all, on the first run of each shape: slow then, fastest afterwards.
    Exhaustive,
    /// Takes the one that cuDNN expects to be fastest.
    Heuristic,
    /// Always the same one; needs the least memory.
    Default,
}

/// How ONNX Runtime's arena on the device grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArenaGrowth {
    /// By powers of two: few allocations.
    PowerOfTwo,
    /// By what is asked for: the least memory.
    AsRequested,
}

/// Values by their names on a command line.
trait Named: Copy + 'static {
    const NAMES: &'static [(&'static str, Self)];
    const WHAT: &'static str;
}

impl Named for ConvSearch {
    const NAMES: &'static [(&'static str, Self)] =
        &[("exhaustive", Self::Exhaustive), ("heuristic", Self::Heuristic), ("default", Self::Default)];
    const WHAT: &'static str = "search for convolution algorithms";
}

impl Named for ArenaGrowth {
    const NAMES: &'static [(&'static str, Self)] =
        &[("power-of-two", Self::PowerOfTwo), ("as-requested", Self::AsRequested)];
    const WHAT: &'static str = "growth of the arena";
}

fn parse<T: Named>(name: &str) -> Result<T, RuntimeError> {
    let known = T::NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, value)| *value).ok_or_else(|| RuntimeError::UnknownValue {
        what: T::WHAT,
        value: name.to_owned(),
        choices: T::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for ConvSearch {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<Self, RuntimeError> {
        parse(name)
    }
}

impl FromStr for ArenaGrowth {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<Self, RuntimeError> {
        parse(name)
    }
}

/// What an engine on a GPU is told; what is not said is ONNX Runtime's default, but for TF32, which is off.
///
/// ```
/// use tallow_runtime::{ConvSearch, GpuOptions};
/// let options = GpuOptions::default().device(1).conv_search(ConvSearch::Heuristic).cuda_graph(true);
/// assert_eq!(options.device_id(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuOptions {
    pub(crate) device: Option<i32>,
    pub(crate) memory_limit: Option<usize>,
    pub(crate) arena: Option<ArenaGrowth>,
    pub(crate) conv_search: Option<ConvSearch>,
    pub(crate) tf32: bool,
    pub(crate) nhwc: bool,
    pub(crate) cuda_graph: bool,
    pub(crate) engine_cache: Option<PathBuf>,
    pub(crate) fp16: bool,
}

impl GpuOptions {
    /// The CUDA device's number, as `CUDA_VISIBLE_DEVICES` leaves them (default: 0).
    pub fn device(mut self, id: i32) -> Self {
        self.device = Some(id);
        self
    }

    /// The most bytes that the arena may take on the device. cuDNN's workspaces come out of it, the driver's own memory
    /// does not.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// How the arena grows (default: by powers of two).
    pub fn arena(mut self, growth: ArenaGrowth) -> Self {
        self.arena = Some(growth);
        self
    }

    /// How the algorithms of convolutions are chosen (default: exhaustive). `ort-cuda` only.
    pub fn conv_search(mut self, search: ConvSearch) -> Self {
        self.conv_search = Some(search);
        self
    }

    /// Multiplies float32 in TF32, with 10 bits of mantissa instead of 23: faster, and off by about 1e-3 (default: off,
    /// though ONNX Runtime's is on, for engines give the same numbers here). `ort-cuda` only.
    pub fn tf32(mut self, on: bool) -> Self {
        self.tf32 = on;
        self
    }

    /// Lets convolutions compute channels-last, as tensor cores do best, above all in float16. `ort-cuda` only.
    pub fn nhwc(mut self, on: bool) -> Self {
        self.nhwc = on;
        self
    }

    /// Records the kernels of a batch size on its first runs and launches them as one from then on. Needs every node on
    /// the GPU, and fixed addresses: IO binding, which is on for GPUs anyhow; and one session. ONNX Runtime records for
    /// each thread that runs the network, so a server does well to run it on few; while it records, on the first runs of
    /// a batch size, CUDA refuses what other threads of the process allocate or copy, so it does well to run each batch
    /// size once before others use the GPU. `ort-cuda` only.
    pub fn cuda_graph(mut self, on: bool) -> Self {
        self.cuda_graph = on;
        self
    }

    /// A folder for the engines that TensorRT builds, made if it is absent: building takes minutes, loading seconds.
    /// `ort-tensorrt` only. An engine is of one model, GPU and TensorRT version; TensorRT tells them apart.
    pub fn engine_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.engine_cache = Some(folder.into());
        self
    }

    /// Lets TensorRT compute a float32 file in float16 where that is faster. `ort-tensorrt` only; a float16 file needs
    /// no word.
    pub fn fp16(mut self, on: bool) -> Self {
        self.fp16 = on;
        self
    }

    /// The CUDA device's number.
    pub fn device_id(&self) -> i32 {
        self.device.unwrap_or(0)
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == GpuOptions::default()
    }

    /// Refuses what `engine` does not take.
    pub(crate) fn check(&self, engine: EngineKind) -> Result<(), RuntimeError> {
        let refuse = |option: &'static str, reason: &str| {
            Err(RuntimeError::EngineOption { engine, option, reason: reason.to_owned() })
        };
        let of_any_gpu = [
            ("cuda-device", self.device.is_some()),
            ("cuda-memory", self.memory_limit.is_some()),
            ("cuda-arena", self.arena.is_some()),
        ];
        let of_cuda = [
            ("conv-search", self.conv_search.is_some()),
            ("tf32", self.tf32),
            ("nhwc", self.nhwc),
            ("cuda-graph", self.cuda_graph),
        ];
        let of_tensorrt = [("trt-cache", self.engine_cache.is_some()), ("trt-fp16", self.fp16)];
        let said =
            |options: &[(&'static str, bool)]| options.iter().find(|(_, said)| *said).map(|(name, _)| *name);
        if !engine.is_gpu()
            && let Some(option) = said(&of_any_gpu)
        {
            return refuse(option, "it runs on no GPU: use --engine ort-cuda or ort-tensorrt");
        }
        match engine {
            EngineKind::OrtCuda => {}
            EngineKind::OrtTensorrt if self.tf32 => {
                return refuse(
                    "tf32",
                    "TensorRT uses TF32 by itself; NVIDIA_TF32_OVERRIDE=0 keeps it from that",
                );
            }
            // Its graph has one number whatever the batch size, so one batch size's would be replayed for all.
            EngineKind::OrtTensorrt if self.cuda_graph => {
                return refuse("cuda-graph", "TensorRT records one batch size alone: use --engine ort-cuda");
            }
            _ => {
                if let Some(option) = said(&of_cuda) {
                    return refuse(option, "it is for --engine ort-cuda");
                }
            }
        }
        if engine != EngineKind::OrtTensorrt
            && let Some(option) = said(&of_tensorrt)
        {
            return refuse(option, "it is for --engine ort-tensorrt");
        }
        if self.device.is_some_and(|id| id < 0) {
            return refuse("cuda-device", "devices are numbered from 0");
        }
        if self.memory_limit == Some(0) {
            return refuse("cuda-memory", "nothing runs in no memory");
        }
        Ok(())
    }
}

impl fmt::Display for GpuOptions {
    /// What is said of the computation, to stand behind a device's name; empty where nothing is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = [
            (self.tf32, "TF32"),
            (self.nhwc, "channels-last"),
            (self.cuda_graph, "CUDA graph"),
            (self.fp16, "float16 where faster"),
        ];
        said.iter().filter(|(on, _)| *on).try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_an_engine_does_not_take_is_refused_by_name() {
        let text = |options: &GpuOptions, engine| options.check(engine).unwrap_err().to_string();
        let tf32 = GpuOptions::default().tf32(true);
        tf32.check(EngineKind::OrtCuda).unwrap();
        assert_eq!(
            text(&tf32, EngineKind::Ort),
            "the engine ort does not take the option tf32: it is for --engine ort-cuda"
        );
        assert!(text(&tf32, EngineKind::OrtTensorrt).contains("NVIDIA_TF32_OVERRIDE"));
        let graph = GpuOptions::default().cuda_graph(true).device(0);
        graph.check(EngineKind::OrtCuda).unwrap();
        assert!(
            text(&graph, EngineKind::OrtTensorrt).contains("cuda-graph: TensorRT records one batch size")
        );
        assert!(text(&graph, EngineKind::Tract).contains("cuda-device: it runs on no GPU"));
        let cache = GpuOptions::default().engine_cache("engines").fp16(true);
        cache.check(EngineKind::OrtTensorrt).unwrap();
        assert!(text(&cache, EngineKind::OrtCuda).contains("trt-cache: it is for --engine ort-tensorrt"));
        assert!(text(&GpuOptions::default().device(-1), EngineKind::OrtCuda).contains("numbered from 0"));
        for engine in EngineKind::ALL {
            GpuOptions::default().check(engine).unwrap();
            // What is off is not asked for.
            GpuOptions::default().tf32(false).fp16(false).check(engine).unwrap();
        }
    }

    #[test]
    fn values_are_named_as_on_the_command_line() {
        assert_eq!("heuristic".parse::<ConvSearch>().unwrap(), ConvSearch::Heuristic);
        assert_eq!("as-requested".parse::<ArenaGrowth>().unwrap(), ArenaGrowth::AsRequested);
        let text = "best".parse::<ConvSearch>().unwrap_err().to_string();
        assert_eq!(
            text,
            "unknown search for convolution algorithms `best`: choose one of exhaustive, heuristic, default"
        );
    }
}
