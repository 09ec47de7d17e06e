//! gradient_flow.png: gradients, updates and activations of each layer, from the input to the output, of one or more
//! networks. Values that are not finite, or 0 on a logarithmic axis, leave a gap.

use image::RgbImage;

use super::axis::{Axis, Scale};
use super::canvas::{AXIS, Anchor, Canvas, Color, GRID, HEADING, LABEL, NOTE, TITLE, shorten, text_width};
use super::curves::{Frame, draw_curve};
use crate::diagnose::{GradientFlow, LayerFlow};
use crate::error::Result;

const WIDTH: u32 = 1600;
/// A line of the legend.
const LINE: f64 = 32.0;
/// Okabe & Ito's colours, which colour-blind readers tell apart.
const COLORS: [Color; 7] = [
    plotters::style::RGBColor(0x00, 0x72, 0xb2),
    plotters::style::RGBColor(0xd5, 0x5e, 0x00),
    plotters::style::RGBColor(0x00, 0x9e, 0x73),
    plotters::style::RGBColor(0xcc, 0x79, 0xa7),
    plotters::style::RGBColor(0xe6, 0x9f, 0x00),
    plotters::style::RGBColor(0x56, 0xb4, 0xe9),
    plotters::style::RGBColor(0x1f, 0x24, 0x2c),
];
/// Where updates of networks that learn well lie.
const USUAL: (f64, f64) = (1e-4, 1e-2);
const BAND: Color = plotters::style::RGBColor(0xe3, 0xf3, 0xec);
/// Decades below the largest value that are drawn; what is smaller lies on the lower edge.
const MOST_DECADES: i32 = 24;

/// A diagram: its heading and what it shows of a layer.
struct Panel {
    heading: &'static str,
    value: fn(&LayerFlow) -> Option<f64>,
    band: Option<(f64, f64)>,
}

/// Draws how gradients flow through each of `flows`, which have names.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails.
pub fn gradient_flow(title: &str, flows: &[(String, &GradientFlow)]) -> Result<RgbImage> {
    let legend = 90.0 + LINE * flows.len() as f64;
    let mut canvas = Canvas::new(WIDTH, (legend + 1000.0) as u32);
    canvas.text(&shorten(title, f64::from(WIDTH) - 120.0, TITLE), (60.0, 48.0), Anchor::Left, TITLE);
    for (i, (name, flow)) in flows.iter().enumerate() {
        let y = 100.0 + LINE * i as f64;
        canvas.line(&[(60.0, y), (94.0, y)], 4.0, color(i));
        let text = format!("{name}: ");
        canvas.text(&text, (108.0, y), Anchor::Left, LABEL);
        let words = flow.verdict().words();
        canvas.text(
            &words,
            (112.0 + text_width(&text, LABEL), y),
            Anchor::Left,
            super::canvas::Type { bold: true, ..LABEL },
        );
    }
    let deepest = flows.iter().map(|(_, flow)| flow.layers.len()).max().unwrap_or(1).max(1);
    let layers = Axis::epochs(1, deepest as u64);
    let panels = [
        Panel {
            heading: "Gradient over weight, |g| / |w|",
            value: |l| Some(l.relative_gradient()),
            band: None,
        },
        Panel {
            heading: "Update over weight, |Δw| / |w|",
            value: |l| Some(l.update_ratio),
            band: Some(USUAL),
        },
        Panel {
            heading: "Standard deviation of the activations",
            value: |l| Some(l.activation.variance.sqrt()),
            band: None,
        },
        Panel {
            heading: "Dead units or saturated values, %",
            value: |l| {
                let shares = [l.activation.dead, l.activation.saturated];
                shares.into_iter().flatten().reduce(f64::max).map(|share| 100.0 * share)
            },
            band: None,
        },
    ];
    for (i, panel) in panels.iter().enumerate() {
        let (left, top) = ([140.0, 920.0][i % 2], legend + 70.0 + 480.0 * (i / 2) as f64);
        let frame = Frame { left, top, width: 620.0, height: 330.0 };
        let axis = if i == 3 { Axis::linear(0.0, 100.0, 5) } else { log_axis(flows, panel) };
        diagram(&mut canvas, frame, panel, (&layers, &axis), flows);
    }
    canvas.finish()
}

fn color(series: usize) -> Color {
    COLORS[series % COLORS.len()]
}

fn log_axis(flows: &[(String, &GradientFlow)], panel: &Panel) -> Axis {
    let all = flows.iter().flat_map(|(_, flow)| flow.layers.iter().filter_map(panel.value));
    let band = panel.band.map(|(low, high)| [low, high]).into_iter().flatten();
    let shown = all.chain(band).filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = shown.fold((f64::INFINITY, 0f64), |(low, high), v| (low.min(v), high.max(v)));
    if high == 0.0 {
        return Axis::log(0.1, 1.0);
    }
    // A few decades at least, so that small differences look small.
    let low = low.min(high / 100.0).max(high * 10f64.powi(-MOST_DECADES));
    Axis::log(low, high)
}

fn diagram(
    canvas: &mut Canvas,
    frame: Frame,
    panel: &Panel,
    (layers, axis): (&Axis, &Axis),
    flows: &[(String, &GradientFlow)],
) {
    let Frame { left, top, width, height } = frame;
    let height_of = |value: f64| top + height - axis.position(value).clamp(0.0, 1.0) * height;
    canvas.text(panel.heading, (left - 80.0, top - 34.0), Anchor::Left, HEADING);
    if let Some((low, high)) = panel.band {
        canvas.rectangle(left, height_of(high), width, height_of(low) - height_of(high), BAND);
        canvas.text("usual", (left + width - 8.0, height_of(high) + 14.0), Anchor::Right, NOTE);
    }
    for (value, label) in &axis.ticks {
        canvas.rectangle(left, height_of(*value) - 0.67, width, 1.34, GRID);
        canvas.text(label, (left - 12.0, height_of(*value)), Anchor::Right, NOTE);
    }
    canvas.rectangle(left, top + height - 0.67, width, 1.34, AXIS);
    let place = |layer: f64| left + 16.0 + layers.position(layer) * (width - 32.0);
    for (layer, label) in &layers.ticks {
        canvas.rectangle(place(*layer) - 0.67, top + height, 1.34, 6.0, AXIS);
        canvas.text(label, (place(*layer), top + height + 22.0), Anchor::Center, NOTE);
    }
    canvas.text(
        "layer, from input to output",
        (left + width / 2.0, top + height + 52.0),
        Anchor::Center,
        NOTE,
    );
    for (i, (_, flow)) in flows.iter().enumerate() {
        let point = |(layer, flow): (usize, &LayerFlow)| {
            let value = (panel.value)(flow)?;
            let shown = value.is_finite() && (axis.scale == Scale::Linear || value > 0.0);
            shown.then(|| (place(layer as f64 + 1.0), height_of(value)))
        };
        let points: Vec<_> = flow.layers.iter().enumerate().map(point).collect();
        draw_curve(canvas, &points, color(i));
    }
}
