//! `tallow info`: what an .onnx file says about itself, and whether its certificate is its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use tallow_runtime::{
    CardDescription, Certificate, Certified, Description, Dtype, Preprocess, ValueDescription,
};

use crate::model::onnx_file;
use crate::output::{json, say, thousands};

/// What a comparison may have compared.
const ENGINES: [&str; 4] = ["candle", "ort", "tract", "candle-onnx"];

#[derive(clap::Args)]
pub struct Args {
    /// An .onnx file, or a run or model directory that holds one
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let description = Description::read(onnx_file(&args.model)?)?;
    if args.json {
        json(&description)?;
    } else {
        print(&description)?;
    }
    Ok(match description.certificate {
        _ if !description.missing_data.is_empty() => ExitCode::FAILURE,
        Certified::Absent | Certified::Valid(_) => ExitCode::SUCCESS,
        Certified::Altered(_) | Certified::Unreadable { .. } => ExitCode::FAILURE,
    })
}

fn print(file: &Description) -> Result<()> {
    line("file", format!("{}, {} bytes", file.file, thousands(file.bytes)))?;
    match &file.card {
        Some(card) => print_card(card)?,
        None => line("architecture", "not said: the file has no metadata of Tallow's")?,
    }
    let types: Vec<String> = match file.parameter_types.len() {
        0 | 1 => file.parameter_types.keys().cloned().collect(),
        _ => file.parameter_types.iter().map(|(kind, n)| format!("{} {kind}", thousands(*n))).collect(),
    };
    let types = if types.is_empty() { String::new() } else { format!(", {}", types.join(", ")) };
    line("parameters", format!("{}{types}", thousands(file.parameters)))?;
    for beside in &file.external_data {
        match file.missing_data.contains(beside) {
            true => line(
                "weights in",
                format!("{beside}: MISSING; copy it into the file's folder, without it nothing runs"),
            )?,
            false => line("weights in", beside)?,
        }
    }
    for (name, values) in [("input", &file.inputs), ("output", &file.outputs)] {
        values.iter().try_for_each(|value| line(name, described(value)))?;
    }
    let nodes: usize = file.operators.values().sum();
    let mut operators: Vec<_> = file.operators.iter().collect();
    operators.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let each: Vec<String> = operators.iter().map(|(op, count)| format!("{count} {op}")).collect();
    line("nodes", format!("{nodes}: {}", each.join(", ")))?;
    let sets: Vec<String> =
        file.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    line("opset", format!("{}, IR version {}", sets.join(", "), file.ir_version))?;
    line("producer", if file.producer.is_empty() { "not said" } else { &file.producer })?;
    for (key, value) in &file.metadata {
        line("metadata", format!("{key}: {value}"))?;
    }
    match &file.certificate {
        Certified::Absent => line("certificate", "none; `tallow verify --certify` writes one"),
        Certified::Valid(certificate) => {
            print_certificate("valid: the file is the one verified", certificate)
        }
        Certified::Altered(certificate) => print_certificate(
            "ALTERED: the file's bytes were changed since it was verified, if only by saving it again; verify it again",
            certificate,
        ),
        Certified::Unreadable { reason } => line("certificate", format!("UNREADABLE: {reason}")),
    }
}

fn print_card(card: &CardDescription) -> Result<()> {
    let CardDescription { architecture, labels, preprocess, output, dtype, dataset, metrics } = card;
    let of = dataset.as_ref().map_or(String::new(), |name| format!(", trained on {name}"));
    line("architecture", format!("{architecture}{of}"))?;
    let shown: Vec<&str> = labels.iter().take(5).map(String::as_str).collect();
    let more = if labels.len() > shown.len() { ", …" } else { "" };
    line("labels", format!("{}: {}{more}", labels.len(), shown.join(", ")))?;
    line("images", prepared(preprocess)?)?;
    line("gives", serde_json::to_string(output)?.trim_matches('"'))?;
    line(
        "computes in",
        match dtype {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16; inputs and outputs are float32",
        },
    )?;
    metrics.iter().try_for_each(|(name, value)| line("metric", format!("{name} {value}")))
}

fn print_certificate(verdict: &str, certificate: &Certificate) -> Result<()> {
    line("certificate", verdict)?;
    let batches: Vec<String> = certificate.batches.iter().map(usize::to_string).collect();
    let [channels, rows, columns] = certificate.sample;
    line(
        "",
        format!(
            "by {}, batches of {} random images {channels}×{rows}×{columns}, seed {}, tolerance {:e}",
            certificate.producer,
            batches.join(", "),
            certificate.seed,
            certificate.tolerance
        ),
    )?;
    for engine in &certificate.engines {
        let result = match (engine.max_abs, engine.max_rel) {
            (Some(abs), Some(rel)) => format!("max abs {abs:.2e}, max rel {rel:.2e}"),
            _ => "reference".into(),
        };
        line("", format!("{} ({}): {result}", engine.engine, engine.version))?;
    }
    let ran = |name: &str| certificate.engines.iter().any(|engine| engine.engine == name);
    for engine in ENGINES.into_iter().filter(|engine| !ran(engine)) {
        line("", format!("{engine}: not compared"))?;
    }
    line("", format!("SHA-256 of the rest {}", certificate.sha256))
}

/// How images are prepared, in words.
fn prepared(preprocess: &Preprocess) -> Result<String> {
    let Preprocess { width, height, mean, std, interpolation, crop_fraction } = preprocess;
    let filter = serde_json::to_string(interpolation)?;
    let filter = filter.trim_matches('"');
    Ok(format!("width {width}, height {height}, {filter}, crop {crop_fraction}, mean {mean:?}, std {std:?}"))
}

fn described(value: &ValueDescription) -> String {
    format!("{} {} {}", value.name, value.shape, value.r#type)
}

fn line(name: &str, text: impl std::fmt::Display) -> Result<()> {
    say!("{name:<12}  {text}")
}
