//! What this build of `tallow` can train on: the runtime knows no training code, so this is told here.

use serde::Serialize;
use tallow_cuda::device;

/// The features that it was built with.
const FEATURES: &[&str] = if cfg!(feature = "nccl") {
    &["cuda", "cudnn", "nccl"]
} else if cfg!(feature = "cuda") {
    &["cuda", "cudnn"]
} else {
    &[]
};

/// What `--version` says: the features, if there are any.
pub const VERSION: &str = if cfg!(feature = "nccl") {
    concat!(env!("CARGO_PKG_VERSION"), " (cuda, cudnn, nccl)")
} else if cfg!(feature = "cuda") {
    concat!(env!("CARGO_PKG_VERSION"), " (cuda, cudnn)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// What candle computes on here.
#[derive(Serialize)]
pub struct Training {
    features: &'static [&'static str],
    /// GPUs that it sees.
    gpus: usize,
    /// Why it uses none though there is a driver.
    reason: Option<String>,
}

impl Training {
    /// On this machine, by this build.
    pub fn here() -> Self {
        Self { features: FEATURES, gpus: device::count(), reason: device::unused_gpu() }
    }
}

impl std::fmt::Display for Training {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("training      candle on the CPU")?;
        match (self.features, self.gpus) {
            ([], _) => f.write_str(" alone: `--features cuda,cudnn` builds for GPUs")?,
            (features, 0) => write!(f, "; built with {}, but there is no GPU", features.join(", "))?,
            (features, gpus) => write!(
                f,
                " and {gpus} GPU{}; built with {}",
                if gpus == 1 { "" } else { "s" },
                features.join(", ")
            )?,
        }
        // Of a build for the CPU it says the same.
        match &self.reason {
            Some(reason) if !self.features.is_empty() => write!(f, " ({reason})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_trained_on_is_one_line() {
        let line = |features, gpus| Training { features, gpus, reason: None }.to_string();
        assert!(line(&[], 0).ends_with("on the CPU alone: `--features cuda,cudnn` builds for GPUs"));
        assert!(line(&["cuda", "cudnn"], 0).ends_with("built with cuda, cudnn, but there is no GPU"));
        assert!(line(&["cuda"], 1).ends_with("on the CPU and 1 GPU; built with cuda"));
        assert!(line(&["cuda"], 8).contains("8 GPUs"));
        assert!(VERSION.starts_with(env!("CARGO_PKG_VERSION")));
        assert!(FEATURES.iter().all(|feature| VERSION.contains(feature)), "{VERSION}");
    }
}
