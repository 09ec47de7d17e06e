//! Tensors from a formula, the twin of tests/parity/formula.py: PyTorch's fixtures hold results only, and both sides
//! compute the same weights and inputs to the bit. The Python file's docstring defines the formula.

/// FNV-1a, 64 bits.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Element `index` of the stream that starts at `seed`: uniform in [0, 1), a multiple of 2^-24.
fn uniform(seed: u64, index: u64) -> f64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / (1u64 << 24) as f64
}

/// The f32 tensor of that name and shape, row-major. `gain` sets the variance of a weight, gain² / fan-in.
pub fn values(name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let kind = name.rsplit('.').next().unwrap_or(name);
    let fan_in: usize = shape.iter().skip(1).product();
    let value: Box<dyn Fn(f64) -> f64> = match (kind, shape.len()) {
        ("num_batches_tracked", _) => Box::new(|_| 0.0),
        ("running_var", _) | ("weight", 1) => Box::new(|u| 0.5 + u),
        ("running_mean" | "bias", _) => Box::new(|u| u - 0.5),
        ("weight", _) => {
            let bound = 3f64.sqrt() * gain / (fan_in as f64).sqrt();
            Box::new(move |u| (2.0 * u - 1.0) * bound)
        }
        _ => Box::new(|u| (2.0 * u - 1.0) * 3f64.sqrt()),
    };
    let seed = fnv1a64(name.as_bytes());
    (0..shape.iter().product::<usize>() as u64).map(|i| value(uniform(seed, i)) as f32).collect()
}

/// The input of every fixture: the tensor named `images`, [batch, 3, height, width].
pub fn images(batch: usize, height: usize, width: usize) -> Vec<f32> {
    values("images", &[batch, 3, height, width], 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that formula.py printed.
    #[test]
    fn values_are_those_of_the_python_twin_to_the_bit() {
        for (name, shape, bits) in [
            ("conv1.weight", &[64, 3, 7, 7][..], [0xbd8f5adc, 0x3c8e6d30, 0x3ddb7b8b]),
            ("layer1.0.bn1.weight", &[64][..], [0x3f9deada, 0x3f20c2a3, 0x3f28db81]),
            ("layer1.0.bn1.running_mean", &[64][..], [0x3ef3dcf8, 0xbee5cb8a, 0x3d55d0f0]),
            ("layer1.0.bn1.running_var", &[64][..], [0x3faf8b34, 0x3f92b806, 0x3f1e6a73]),
            ("fc.weight", &[10, 512][..], [0x3db3c9c3, 0xbb4ff7de, 0xbcab3d6a]),
            ("fc.bias", &[10][..], [0x3eaedc6e, 0xbcb714a0, 0x3d59ffc0]),
            ("images", &[2, 3, 5, 7][..], [0xbfc2a0d8, 0xbf8be7d5, 0xbe9e76a2]),
        ] {
            let v = values(name, shape, 1.35);
            assert_eq!([v[0], v[1], v[v.len() - 1]].map(f32::to_bits), bits, "{name}");
        }
    }
}
