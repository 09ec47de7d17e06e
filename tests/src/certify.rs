//! Writes what a verification found into the file that was verified.

use std::path::Path;

use tallow_builder::files::write_atomically;
use tallow_runtime::certificate::{attach, digest};
use tallow_runtime::{Certificate, CertifiedEngine, Description};

use crate::error::Error;
use crate::report::{Outcome, Report, Row};

/// A file that is about to be verified and certified.
#[derive(Clone, Debug)]
pub struct Certifier {
    sha256: String,
}

impl Certifier {
    /// Takes the file's digest before it is verified, so that no other file can get the certificate.
    ///
    /// # Errors
    /// Where the file cannot be read, is no ONNX model, or has weights in other files, which the digest would not
    /// cover.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let Description { file, external_data, .. } = Description::read(path)?;
        if let Some(beside) = external_data.first() {
            let problem = format!(
                "its weights lie in {beside}, which a certificate in it would not cover: save it as one file"
            );
            return Err(Error::File { file, problem });
        }
        Ok(Self { sha256: sha256(path)?.0 })
    }

    /// Writes the certificate, in place of an older one. The file is the old or the new one at any time, and all else
    /// in it stays as it is, to the byte.
    ///
    /// # Errors
    /// Where the engines do not agree, the file was changed meanwhile, or it cannot be written.
    pub fn certify(&self, path: &Path, report: &Report) -> Result<Certificate, Error> {
        let wrong = |problem: &str| Error::File { file: report.file.clone(), problem: problem.into() };
        let compared = |row: &Row| matches!(row.outcome, Outcome::Compared { .. });
        if !report.engines.iter().any(compared) {
            return Err(wrong("is not certified, for nothing was compared: a second engine is needed"));
        }
        if !report.agrees {
            return Err(wrong("is not certified, for the engines do not agree"));
        }
        let (sha256, bytes) = sha256(path)?;
        if sha256 != self.sha256 {
            return Err(wrong("was changed while it was verified: try again"));
        }
        let certificate = Certificate {
            sha256,
            producer: concat!("tallow ", env!("CARGO_PKG_VERSION")).into(),
            reference: report.reference.clone(),
            tolerance: report.tolerance,
            sample: report.sample,
            batches: report.batches.clone(),
            seed: report.seed,
            engines: report.engines.iter().filter_map(certified).collect(),
        };
        let certified = attach(&report.file, &bytes, &certificate)?;
        // A link stays a link, and what it leads to is replaced.
        let target = path.canonicalize().map_err(|source| Error::Write { path: path.to_owned(), source })?;
        write_atomically(&target, &certified).map_err(tallow_exporter::Error::from)?;
        Ok(certificate)
    }
}

fn sha256(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::Read { file: file.clone(), source })?;
    Ok((digest(&file, &bytes)?, bytes))
}

/// An engine that ran; what did not run proves nothing.
fn certified(row: &Row) -> Option<CertifiedEngine> {
    let (max_abs, max_rel) = match row.outcome {
        Outcome::Reference => (None, None),
        Outcome::Compared { max_abs, max_rel, .. } => (Some(max_abs), Some(max_rel)),
        _ => return None,
    };
    let version = row.version.clone().unwrap_or_default();
    Some(CertifiedEngine { engine: row.engine.clone(), version, max_abs, max_rel })
}
