//! What tract's kernels leave behind in the processor.

/// Marks the upper parts of the vector registers as free, where there are any.
///
/// tract 0.23's kernels for AVX return without doing so. Until it is done, instructions of SSE, which is what Rust
/// compiles to where nothing else is said, keep these parts alive, and each change between them and those of AVX, as in
/// the C library's functions, costs some hundred cycles: on the thread that had run a network, a logarithm and a cosine
/// took 420 ns instead of 31.
pub(super) fn free_upper_parts() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX. Code without it keeps nothing in these parts.
        unsafe { core::arch::x86_64::_mm256_zeroupper() }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use core::arch::asm;
    use core::arch::x86_64::__cpuid_count;

    use super::*;

    /// Whether upper parts are in use: AVX's state in XINUSE (Intel's manual, volume 1, section 13.6). `None` where the
    /// processor does not tell.
    fn in_use() -> Option<bool> {
        let tells = is_x86_feature_detected!("avx") && __cpuid_count(13, 1).eax & 4 != 0;
        tells.then(|| {
            let low: u32;
            // SAFETY: the processor has this instruction, which only reads.
            unsafe { asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") _, options(nomem, nostack)) };
            low & 4 != 0
        })
    }

    #[test]
    fn upper_parts_are_free_after_it() {
        if in_use().is_none() {
            return;
        }
        // SAFETY: the processor has AVX.
        unsafe { asm!("vzeroupper") };
        if in_use() == Some(true) {
            return; // It tells too much.
        }
        // SAFETY: the processor has AVX.
        unsafe { asm!("vpcmpeqb ymm0, ymm0, ymm0", out("ymm0") _) };
        assert_eq!(in_use(), Some(true));
        free_upper_parts();
        assert_eq!(in_use(), Some(false));
    }
}
