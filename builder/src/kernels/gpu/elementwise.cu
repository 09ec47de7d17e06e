// One value out for one in. `packs` counts packs of VECTOR elements; maps are [images, pixels, channels].

KERNEL activation(int kind, float slope, i64 packs, const T *x, T *y) {
    FOR_EACH(i, packs) {
        float v[VECTOR];
        read(x + i * VECTOR, v);
        for (int k = 0; k < VECTOR; k++) v[k] = activate(kind, slope, v[k]);
        write(y + i * VECTOR, v);
    }
}

KERNEL activation_gradient(int kind, float slope, i64 packs, const T *x, const T *y, const T *grad, T *dx) {
    FOR_EACH(i, packs) {
        float in[VECTOR], out[VECTOR], g[VECTOR];
        read(x + i * VECTOR, in);
        read(y + i * VECTOR, out);
        read(grad + i * VECTOR, g);
        for (int k = 0; k < VECTOR; k++) g[k] *= derivative(kind, slope, in[k], out[k]);
        write(dx + i * VECTOR, g);
    }
}

KERNEL add(i64 packs, const T *a, const T *b, T *sum) {
    FOR_EACH(i, packs) {
        float v[VECTOR], w[VECTOR];
        read(a + i * VECTOR, v);
        read(b + i * VECTOR, w);
        for (int k = 0; k < VECTOR; k++) v[k] += w[k];
        write(sum + i * VECTOR, v);
    }
}

// The bits at a place of SplitMix64's sequence, as `rng.rs` has them.
__device__ inline u64 random_bits(u64 seed, u64 place) {
    u64 z = seed + (place + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Elements, or whole images, times 0 where their bits are below the threshold, else times the factor. Elements count in
// the order of [images, channels, pixels], which is the CPU's.
KERNEL dropout(i64 packs, int pixels, int channels, int by_image, u64 seed, u32 threshold, float factor, const T *x, T *y) {
    u32 row = channels / VECTOR;
    FOR_EACH(i, packs) {
        u32 image = (u32)i / (row * pixels), pixel = (u32)i / row % pixels, channel = (u32)i % row * VECTOR;
        float v[VECTOR];
        read(x + i * VECTOR, v);
        for (int k = 0; k < VECTOR; k++) {
            u64 place = by_image ? image : ((u64)image * channels + channel + k) * pixels + pixel;
            v[k] *= (u32)(random_bits(seed, place) >> 32) < threshold ? 0.0f : factor;
        }
        write(y + i * VECTOR, v);
    }
}

KERNEL narrow(i64 packs, const float *from, T *to) {
    FOR_EACH(i, packs) {
        float v[VECTOR];
        read(from + i * VECTOR, v);
        write(to + i * VECTOR, v);
    }
}

KERNEL widen(i64 packs, const T *from, float *to) {
    FOR_EACH(i, packs) {
        float v[VECTOR];
        read(from + i * VECTOR, v);
        write(to + i * VECTOR, v);
    }
}

// y += bias, one number a channel.
KERNEL add_bias(i64 packs, int channels, const float *bias, T *y) {
    FOR_EACH(i, packs) {
        int channel = ((u32)i % (u32)(channels / VECTOR)) * VECTOR;
        float v[VECTOR], b[VECTOR];
        read(y + i * VECTOR, v);
        read(bias + channel, b);
        for (int k = 0; k < VECTOR; k++) v[k] += b[k];
        write(y + i * VECTOR, v);
    }
}

// A factor for each image and channel (squeeze-and-excitation).
KERNEL channel_scale(i64 packs, int pixels, int channels, const T *x, const T *scale, T *y) {
    u32 row = channels / VECTOR;
    FOR_EACH(i, packs) {
        u32 image = (u32)i / (row * pixels), pack = (u32)i % row;
        float v[VECTOR], factor[VECTOR];
        read(x + i * VECTOR, v);
        read(scale + ((i64)image * row + pack) * VECTOR, factor);
        for (int k = 0; k < VECTOR; k++) v[k] *= factor[k];
        write(y + i * VECTOR, v);
    }
}

// y[image, pixel, channel] = factor * x[image, channel]: the gradient of a mean over pixels.
KERNEL spread(i64 packs, int pixels, int channels, float factor, const T *x, T *y) {
    u32 row = channels / VECTOR;
    FOR_EACH(i, packs) {
        u32 image = (u32)i / (row * pixels), pack = (u32)i % row;
        float v[VECTOR];
        read(x + ((i64)image * row + pack) * VECTOR, v);
        for (int k = 0; k < VECTOR; k++) v[k] *= factor;
        write(y + i * VECTOR, v);
    }
}
