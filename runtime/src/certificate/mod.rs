//! A certificate: what a verification found, kept in the `.onnx` file that was verified, with a digest of the rest of
//! the file. It shows that a file is the one that was verified; it is a checksum, not a signature.

mod wire;

use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallow_input::CERTIFICATE_KEY;

use crate::error::RuntimeError;

/// `ModelProto.metadata_props`.
const METADATA: u64 = 14;

/// What a verification found. The same verification of the same file gives the same certificate: it has no date, and
/// no paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of the file's bytes without this entry, in hexadecimal digits.
    pub sha256: String,
    /// The program that verified, with its version.
    pub producer: String,
    /// The engine that the others were compared with.
    pub reference: String,
    /// The largest difference allowed, relative to the reference's largest output.
    pub tolerance: f64,
    /// Channels, rows and columns of the random images.
    pub sample: [usize; 3],
    /// Images a batch.
    pub batches: Vec<usize>,
    /// Seed of the random images.
    pub seed: u64,
    /// The engines that ran, the reference among them.
    pub engines: Vec<CertifiedEngine>,
}

/// An engine of a [`Certificate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertifiedEngine {
    /// Its name, such as `ort`.
    pub engine: String,
    /// The library and its version.
    pub version: String,
    /// The largest difference of any output; none for the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_abs: Option<f64>,
    /// The same, relative to the reference's largest output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rel: Option<f64>,
}

/// What a file's certificate is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Certified {
    /// The file has none.
    Absent,
    /// The file is the one that was verified.
    Valid(Certificate),
    /// The file was changed after it was verified.
    Altered(Certificate),
    /// The entry is there and cannot be understood.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Certified {
    /// Looks for a model's certificate and compares its digest; `file` is what errors call the model.
    ///
    /// # Errors
    /// [`RuntimeError::Model`] where the bytes are no ONNX model.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Certified, RuntimeError> {
        let parts = Parts::of(file, bytes)?;
        let Some(text) = &parts.certificate else { return Ok(Certified::Absent) };
        Ok(match serde_json::from_str::<Certificate>(text) {
            Ok(certificate) if certificate.sha256 == parts.digest(bytes) => Certified::Valid(certificate),
            Ok(certificate) => Certified::Altered(certificate),
            Err(error) => Certified::Unreadable { reason: error.to_string() },
        })
    }
}

/// The SHA-256 of a model's bytes without its certificate, in hexadecimal digits.
///
/// # Errors
/// [`RuntimeError::Model`] where the bytes are no ONNX model.
pub fn digest(file: &str, bytes: &[u8]) -> Result<String, RuntimeError> {
    Ok(Parts::of(file, bytes)?.digest(bytes))
}

/// The model with this certificate in place of any other. All else keeps its bytes and order.
///
/// # Errors
/// [`RuntimeError::Model`] where the bytes are no ONNX model.
pub fn attach(file: &str, bytes: &[u8], certificate: &Certificate) -> Result<Vec<u8>, RuntimeError> {
    let parts = Parts::of(file, bytes)?;
    let value = serde_json::to_string(certificate).expect("numbers and strings are always representable");
    let entry = Entry { key: CERTIFICATE_KEY.into(), value };
    let mut certified = Vec::with_capacity(bytes.len() + entry.encoded_len() + 16);
    for kept in &parts.kept {
        certified.extend_from_slice(&bytes[kept.clone()]);
    }
    let model = Metadata { metadata_props: vec![entry] };
    certified.extend(model.encode_to_vec());
    Ok(certified)
}

/// A model's bytes, the certificate apart.
struct Parts {
    kept: Vec<std::ops::Range<usize>>,
    certificate: Option<String>,
}

impl Parts {
    fn of(file: &str, bytes: &[u8]) -> Result<Parts, RuntimeError> {
        let fields = wire::fields(bytes).filter(|fields| !fields.is_empty());
        let fields = fields.ok_or_else(|| RuntimeError::Model {
            file: file.to_owned(),
            reason: "not an ONNX model, or damaged: name another file, or export it again".into(),
        })?;
        let mut parts = Parts { kept: vec![], certificate: None };
        for field in fields {
            match certificate_in(bytes, &field) {
                Some(text) => parts.certificate = Some(text),
                None => parts.kept.push(field.whole),
            }
        }
        Ok(parts)
    }

    fn digest(&self, bytes: &[u8]) -> String {
        let mut hash = Sha256::new();
        for kept in &self.kept {
            hash.update(&bytes[kept.clone()]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn certificate_in(bytes: &[u8], field: &wire::Field) -> Option<String> {
    let entry = (field.number == METADATA).then(|| Entry::decode(&bytes[field.content.clone()]).ok())??;
    (entry.key == CERTIFICATE_KEY).then_some(entry.value)
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A `ModelProto` that is only metadata.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(bytes: &[u8]) -> Certificate {
        Certificate {
            sha256: digest("m.onnx", bytes).unwrap(),
            producer: "tallow 0.1.0".into(),
            reference: "candle".into(),
            tolerance: 1e-5,
            sample: [3, 8, 8],
            batches: vec![1, 3],
            seed: 1,
            engines: vec![CertifiedEngine {
                engine: "tract".into(),
                version: "tract 0.23.9".into(),
                max_abs: Some(1.25e-6),
                max_rel: Some(2.0f64.powi(-20) / 3.0),
            }],
        }
    }

    /// A message with a varint, a field that nobody knows, and two metadata entries.
    fn model() -> Vec<u8> {
        let entry = |key: &str| Entry { key: key.into(), value: "x".into() };
        let metadata = Metadata { metadata_props: vec![entry("author"), entry("tallow.labels")] };
        [vec![0x08, 8], metadata.encode_to_vec(), vec![0xc2, 0x3e, 3, 1, 2, 3]].concat()
    }

    #[test]
    fn a_certificate_is_read_back_and_changes_no_other_byte() {
        let model = model();
        assert_eq!(Certified::read("m.onnx", &model).unwrap(), Certified::Absent);
        let certificate = certificate(&model);
        let certified = attach("m.onnx", &model, &certificate).unwrap();
        assert!(certified.starts_with(&model));
        assert_eq!(Certified::read("m.onnx", &certified).unwrap(), Certified::Valid(certificate.clone()));
        assert_eq!(attach("m.onnx", &certified, &certificate).unwrap(), certified);
        assert_eq!(digest("m.onnx", &certified).unwrap(), digest("m.onnx", &model).unwrap());
        // Another program may append fields, which is a change, or write the entries in another order.
        let appended = [certified.clone(), vec![0x28, 1]].concat();
        assert!(matches!(Certified::read("m.onnx", &appended).unwrap(), Certified::Altered(_)));
        let first = [&certified[model.len()..], &model].concat();
        assert_eq!(Certified::read("m.onnx", &first).unwrap(), Certified::Valid(certificate));
    }

    #[test]
    fn any_other_byte_that_changes_shows() {
        let model = model();
        let certified = attach("m.onnx", &model, &certificate(&model)).unwrap();
        for at in 0..model.len() {
            let mut changed = certified.clone();
            changed[at] ^= 1;
            let valid = matches!(Certified::read("m.onnx", &changed), Ok(Certified::Valid(_)));
            assert!(!valid, "byte {at}");
        }
    }

    #[test]
    fn what_is_no_model_or_no_certificate_is_told() {
        for bytes in [&b""[..], b"\x89PNG\r\n", b"\x08"] {
            let text = digest("m.onnx", bytes).unwrap_err().to_string();
            assert!(text.starts_with("m.onnx: not an ONNX model"), "{text}");
        }
        let entry = Entry { key: CERTIFICATE_KEY.into(), value: "{}".into() };
        let bytes = [model(), Metadata { metadata_props: vec![entry] }.encode_to_vec()].concat();
        let Certified::Unreadable { reason } = Certified::read("m.onnx", &bytes).unwrap() else { panic!() };
        assert!(reason.contains("sha256"), "{reason}");
    }
}
