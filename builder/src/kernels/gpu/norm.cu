// Batch normalisation of [rows, channels], with the activation behind it and the residual added before that:
// y = activate(factor * x + offset + residual), where factor = scale / std and offset = shift - mean * factor.

// partial[split, 2, channel]: sums of x - x0 and of its square, where x0 is the channel's first value: what is close
// to the mean keeps the squares from cancelling. Grid: packs of channels by `lanes`, then splits of the rows.
KERNEL moments(i64 rows, int channels, int lanes, const T *x, float *partial) {
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, height = BLOCK / lanes;
    int pack = blockIdx.x * lanes + lane;
    bool inside = pack < channels / VECTOR;
    float sums[2 * VECTOR], first[VECTOR];
#pragma unroll
    for (int k = 0; k < 2 * VECTOR; k++) sums[k] = 0.0f;
    if (inside) read(x + pack * VECTOR, first);
    for (i64 r = (i64)blockIdx.y * height + row; inside && r < rows; r += (i64)gridDim.y * height) {
        float v[VECTOR];
        read(x + r * channels + pack * VECTOR, v);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            float d = v[k] - first[k];
            sums[k] += d;
            sums[VECTOR + k] += d * d;
        }
    }
    sum_over_rows(sums, lanes);
    if (inside && row == 0) {
        float *to = partial + (i64)blockIdx.y * 2 * channels + pack * VECTOR;
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            to[k] = sums[k];
            to[channels + k] = sums[VECTOR + k];
        }
    }
}

// Mean and biased variance of each channel. A block is 32 channels wide.
KERNEL finish_moments(int splits, i64 rows, int channels, const T *x, const float *partial, float *mean, float *var) {
    __shared__ double shared[2][BLOCK];
    int channel = blockIdx.x * 32 + threadIdx.x % 32;
    double sum = 0.0, square = 0.0;
    for (int split = threadIdx.x / 32; channel < channels && split < splits; split += BLOCK / 32) {
        sum += partial[(i64)split * 2 * channels + channel];
        square += partial[(i64)split * 2 * channels + channels + channel];
    }
    shared[0][threadIdx.x] = sum;
    shared[1][threadIdx.x] = square;
    __syncthreads();
    for (int step = BLOCK / 2; step >= 32; step /= 2) {
        if (threadIdx.x < step) {
            shared[0][threadIdx.x] += shared[0][threadIdx.x + step];
            shared[1][threadIdx.x] += shared[1][threadIdx.x + step];
        }
        __syncthreads();
    }
    if (threadIdx.x < 32 && channel < channels) {
        double shift = shared[0][threadIdx.x] / rows;
        double spread = shared[1][threadIdx.x] / rows - shift * shift;
        mean[channel] = (float)(to_float(x[channel]) + shift);
        // Rounding may make it negative; NaN stays NaN.
        var[channel] = spread < 0.0 ? 0.0f : (float)spread;
    }
}

KERNEL affine(int channels, float eps, const float *mean, const float *var, const float *scale, const float *shift,
              float *factor, float *offset) {
    FOR_EACH(c, channels) {
        double f = scale[c] / sqrt((double)var[c] + eps);
        factor[c] = (float)f;
        offset[c] = (float)(shift[c] - mean[c] * f);
    }
}

KERNEL normalise(int kind, float slope, i64 packs, int channels, const T *x, const float *factor, const float *offset,
                 const T *residual, T *y) {
    FOR_EACH(i, packs) {
        int channel = ((u32)i % (u32)(channels / VECTOR)) * VECTOR;
        float v[VECTOR], f[VECTOR], o[VECTOR];
        read(x + i * VECTOR, v);
        read(factor + channel, f);
        read(offset + channel, o);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) v[k] = f[k] * v[k] + o[k];
        if (residual) {
            float r[VECTOR];
            read(residual + i * VECTOR, r);
#pragma unroll
            for (int k = 0; k < VECTOR; k++) v[k] += r[k];
        }
#pragma unroll
        for (int k = 0; k < VECTOR; k++) v[k] = activate(kind, slope, v[k]);
        write(y + i * VECTOR, v);
    }
}

// The mean over pixels of activate(factor * x + offset) for each image and channel (squeeze, Hu et al. 2018), or of its
// product with `grad`, where that is given: to[image, channel] = share * sum. Grid: packs of channels by `lanes`, then
// images.
KERNEL squeeze(int kind, float slope, int pixels, int channels, int lanes, float share, const T *x, const T *grad,
               const float *factor, const float *offset, T *to) {
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes;
    int pack = blockIdx.x * lanes + lane, channel = pack * VECTOR;
    bool inside = pack < channels / VECTOR;
    i64 base = (i64)blockIdx.y * pixels * channels + channel;
    float sums[VECTOR], f[VECTOR], o[VECTOR];
#pragma unroll
    for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
    if (inside) {
        read(factor + channel, f);
        read(offset + channel, o);
    }
    for (int pixel = row; inside && pixel < pixels; pixel += BLOCK / lanes) {
        float v[VECTOR], g[VECTOR];
        read(x + base + (i64)pixel * channels, v);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) g[k] = 1.0f;
        if (grad) read(grad + base + (i64)pixel * channels, g);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sums[k] += g[k] * activate(kind, slope, f[k] * v[k] + o[k]);
    }
    sum_over_rows(sums, lanes);
    if (inside && row == 0) {
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sums[k] *= share;
        write(to + (i64)blockIdx.y * channels + channel, sums);
    }
}

// y = activate(factor * x + offset) * gate, one number for each image and channel.
KERNEL excite(int kind, float slope, i64 packs, int pixels, int channels, const T *x, const float *factor,
              const float *offset, const T *gate, T *y) {
    u32 width = channels / VECTOR;
    FOR_EACH(i, packs) {
        u32 image = (u32)i / (width * pixels), channel = (u32)i % width * VECTOR;
        float v[VECTOR], f[VECTOR], o[VECTOR], by[VECTOR];
        read(x + i * VECTOR, v);
        read(factor + channel, f);
        read(offset + channel, o);
        read(gate + (i64)image * channels + channel, by);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) v[k] = by[k] * activate(kind, slope, f[k] * v[k] + o[k]);
        write(y + i * VECTOR, v);
    }
}

// What came behind a normalisation of maps of so many pixels: an activation, a residual (or null) added before it, and
// squeeze and excitation (or null): the gate, and the gradient of what was squeezed.
struct Behind {
    int kind;
    float slope;
    int pixels;
    const T *residual, *gate, *squeezed;
};

// From the gradient of what is behind to the one before the activation, at pack i. The output `y` is read only where
// that spares the residual: else what is needed of it follows from x.
__device__ __forceinline__ void before_activation(const Behind &behind, i64 i, int channels, int channel,
                                                  const float (&v)[VECTOR], const float *factor, const float *offset,
                                                  const T *y, float (&g)[VECTOR]) {
    if (behind.gate) {
        float gate[VECTOR], squeezed[VECTOR], share = 1.0f / behind.pixels;
        i64 at = (i64)((u32)i / ((u32)(channels / VECTOR) * behind.pixels)) * channels + channel;
        read(behind.gate + at, gate);
        read(behind.squeezed + at, squeezed);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) g[k] = g[k] * gate[k] + squeezed[k] * share;
    }
    if (behind.kind == IDENTITY) return;
    float z[VECTOR], out[VECTOR];
    if (behind.residual && uses_output(behind.kind)) {
        read(y + i * VECTOR, out);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) z[k] = 0.0f;
    } else {
        float f[VECTOR], o[VECTOR];
        read(factor + channel, f);
        read(offset + channel, o);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) z[k] = f[k] * v[k] + o[k];
        if (behind.residual) {
            float r[VECTOR];
            read(behind.residual + i * VECTOR, r);
#pragma unroll
            for (int k = 0; k < VECTOR; k++) z[k] += r[k];
        }
#pragma unroll
        for (int k = 0; k < VECTOR; k++) out[k] = activate(behind.kind, behind.slope, z[k]);
    }
#pragma unroll
    for (int k = 0; k < VECTOR; k++) g[k] *= derivative(behind.kind, behind.slope, z[k], out[k]);
}

// partial[split, 2, channel]: sums of dz and of dz * (x - mean), where dz is the gradient before the activation, which
// is also written to `dz` where that is given: it is the residual's gradient. Grid as that of `moments`.
KERNEL gradient_sums(int kind, float slope, int pixels, const T *residual, const T *gate, const T *squeezed, i64 rows,
                     int channels, int lanes, const T *x, const T *y, const T *grad, const float *factor,
                     const float *offset, const float *mean, T *dz, float *partial) {
    const Behind behind = {kind, slope, pixels, residual, gate, squeezed};
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, height = BLOCK / lanes;
    int pack = blockIdx.x * lanes + lane, channel = pack * VECTOR;
    bool inside = pack < channels / VECTOR;
    float sums[2 * VECTOR], m[VECTOR];
#pragma unroll
    for (int k = 0; k < 2 * VECTOR; k++) sums[k] = 0.0f;
    if (inside) read(mean + channel, m);
    for (i64 r = (i64)blockIdx.y * height + row; inside && r < rows; r += (i64)gridDim.y * height) {
        i64 i = r * (channels / VECTOR) + pack;
        float v[VECTOR], g[VECTOR];
        read(x + i * VECTOR, v);
        read(grad + i * VECTOR, g);
        before_activation(behind, i, channels, channel, v, factor, offset, y, g);
        if (dz) write(dz + i * VECTOR, g);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            sums[k] += g[k];
            sums[VECTOR + k] += g[k] * (v[k] - m[k]);
        }
    }
    sum_over_rows(sums, lanes);
    if (inside && row == 0) {
        float *to = partial + (i64)blockIdx.y * 2 * channels + channel;
#pragma unroll
        for (int k = 0; k < VECTOR; k++) {
            to[k] = sums[k];
            to[channels + k] = sums[VECTOR + k];
        }
    }
}

// From the sums [2, channels] to the gradients of scale and shift and to dx = a * dz + b * x + c.
// `constant` says that the moments are constants: running moments.
KERNEL coefficients(int channels, i64 count, float eps, int constant, const float *sums, const float *mean,
                    const float *var, const float *scale, float *scale_gradient, float *shift_gradient, float *a,
                    float *b, float *c) {
    FOR_EACH(i, channels) {
        double inverse = 1.0 / sqrt((double)var[i] + eps);
        double plain = sums[i], normalised = sums[channels + i] * inverse;
        scale_gradient[i] = (float)normalised;
        shift_gradient[i] = (float)plain;
        double by_gradient = scale[i] * inverse;
        double by_input = constant ? 0.0 : -by_gradient * inverse * normalised / count;
        a[i] = (float)by_gradient;
        b[i] = (float)by_input;
        c[i] = constant ? 0.0f : (float)(-by_gradient * plain / count - by_input * mean[i]);
    }
}

KERNEL input_gradient(int kind, float slope, int pixels, const T *residual, const T *gate, const T *squeezed, i64 packs,
                      int channels, const T *x, const T *y, const T *grad, const float *factor, const float *offset,
                      const float *a, const float *b, const float *c, T *dx) {
    const Behind behind = {kind, slope, pixels, residual, gate, squeezed};
    FOR_EACH(i, packs) {
        int channel = ((u32)i % (u32)(channels / VECTOR)) * VECTOR;
        float v[VECTOR], g[VECTOR], by_gradient[VECTOR], by_input[VECTOR], constant[VECTOR];
        read(x + i * VECTOR, v);
        read(grad + i * VECTOR, g);
        before_activation(behind, i, channels, channel, v, factor, offset, y, g);
        read(a + channel, by_gradient);
        read(b + channel, by_input);
        read(c + channel, constant);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) g[k] = by_gradient[k] * g[k] + by_input[k] * v[k] + constant[k];
        write(dx + i * VECTOR, g);
    }
}

// running = (1 - momentum) * running + momentum * batch for all layers at once (`table.cu`), into new vectors; the
// variance is the unbiased one. A row's tensors: the batch's mean and variance, the running ones, the new ones, then the
// counts of batches, old and new. Its numbers: momentum, and what makes the variance unbiased.
KERNEL track(const Row *rows, int count) {
    const Row row = row_of_block(rows, count);
    const float *mean = (const float *)row.tensors[0], *var = (const float *)row.tensors[1];
    const float *running_mean = (const float *)row.tensors[2], *running_var = (const float *)row.tensors[3];
    float *new_mean = (float *)row.tensors[4], *new_var = (float *)row.tensors[5];
    const float momentum = row.numbers[0], correction = row.numbers[1];
    FOR_CHUNK(c, row) {
        new_mean[c] = running_mean[c] * (1.0f - momentum) + mean[c] * momentum;
        new_var[c] = running_var[c] * (1.0f - momentum) + var[c] * correction * momentum;
        if (c == 0) *(i64 *)row.tensors[7] = *(const i64 *)row.tensors[6] + 1;
    }
}
