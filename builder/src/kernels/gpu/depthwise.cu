// Depthwise convolution of maps [images, height, width, channels] with one filter a channel, as [taps, channels] in
// float. The window is known when this is compiled, so that its loops unroll and its weights stay in registers.
#define KERNEL_HEIGHT P0
#define KERNEL_WIDTH P1
#define STRIDE_HEIGHT P2
#define STRIDE_WIDTH P3
#define DILATION_HEIGHT P4
#define DILATION_WIDTH P5
#define TAPS (KERNEL_HEIGHT * KERNEL_WIDTH)

// Neighbouring outputs that a thread computes: each input column is read once for all of them.
#define STRIP 4
#define SPAN ((STRIP - 1) * STRIDE_WIDTH + (KERNEL_WIDTH - 1) * DILATION_WIDTH + 1)

// `work` counts (image, output row, strip, pack of channels). Pads may be negative: then the input is cropped.
KERNEL depthwise(i64 work, int height, int width, int out_height, int out_width, int channels, int top, int left,
                 const T *x, const float *weight, const float *bias, T *y) {
    u32 packs = channels / VECTOR, strips = (out_width + STRIP - 1) / STRIP;
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, rest = (u32)i / packs;
        u32 strip = rest % strips, place = rest / strips;
        int row = place % out_height, channel = pack * VECTOR;
        i64 image = place / out_height;
        int first_column = (int)strip * STRIP * STRIDE_WIDTH - left;
        float sums[STRIP][VECTOR];
#pragma unroll
        for (int s = 0; s < STRIP; s++)
#pragma unroll
            for (int k = 0; k < VECTOR; k++) sums[s][k] = 0.0f;
#pragma unroll
        for (int ky = 0; ky < KERNEL_HEIGHT; ky++) {
            int in_row = row * STRIDE_HEIGHT - top + ky * DILATION_HEIGHT;
            if (in_row < 0 || in_row >= height) continue;
            float w[KERNEL_WIDTH][VECTOR];
#pragma unroll
            for (int kx = 0; kx < KERNEL_WIDTH; kx++) read(weight + (ky * KERNEL_WIDTH + kx) * channels + channel, w[kx]);
            const T *line = x + (image * height + in_row) * (i64)width * channels + channel;
#pragma unroll
            for (int j = 0; j < SPAN; j++) {
                int column = first_column + j;
                if (column < 0 || column >= width) continue;
                float v[VECTOR];
                read(line + (i64)column * channels, v);
#pragma unroll
                for (int s = 0; s < STRIP; s++) {
                    int offset = j - s * STRIDE_WIDTH;
                    if (offset < 0 || offset % DILATION_WIDTH || offset / DILATION_WIDTH >= KERNEL_WIDTH) continue;
                    for (int k = 0; k < VECTOR; k++) sums[s][k] += v[k] * w[offset / DILATION_WIDTH][k];
                }
            }
        }
        if (bias) {
            float b[VECTOR];
            read(bias + channel, b);
            for (int s = 0; s < STRIP; s++)
                for (int k = 0; k < VECTOR; k++) sums[s][k] += b[k];
        }
        T *to = y + ((image * out_height + row) * out_width + (i64)strip * STRIP) * channels + channel;
#pragma unroll
        for (int s = 0; s < STRIP; s++)
            if (strip * STRIP + s < out_width) write(to + (i64)s * channels, sums[s]);
    }
}

// `work` counts (image, input row, input column, pack of channels).
KERNEL depthwise_input_gradient(i64 work, int height, int width, int out_height, int out_width, int channels, int top,
                                int left, const T *grad, const float *weight, T *dx) {
    u32 packs = channels / VECTOR;
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, place = (u32)i / packs;
        int column = place % width, row = place / width % height, channel = pack * VECTOR;
        i64 image = place / width / height;
        float sums[VECTOR];
        for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
#pragma unroll
        for (int ky = 0; ky < KERNEL_HEIGHT; ky++) {
            int y = row + top - ky * DILATION_HEIGHT;
            if (y < 0 || y % STRIDE_HEIGHT || y / STRIDE_HEIGHT >= out_height) continue;
#pragma unroll
            for (int kx = 0; kx < KERNEL_WIDTH; kx++) {
                int at = column + left - kx * DILATION_WIDTH;
                if (at < 0 || at % STRIDE_WIDTH || at / STRIDE_WIDTH >= out_width) continue;
                float g[VECTOR], w[VECTOR];
                read(grad + ((image * out_height + y / STRIDE_HEIGHT) * out_width + at / STRIDE_WIDTH) * channels + channel, g);
                read(weight + (ky * KERNEL_WIDTH + kx) * channels + channel, w);
                for (int k = 0; k < VECTOR; k++) sums[k] += g[k] * w[k];
            }
        }
        write(dx + i * VECTOR, sums);
    }
}

// partial[split, tap, channel]. Grid: packs of channels by `lanes`, then splits of the images' output rows.
KERNEL depthwise_weight_gradient(int rows, int height, int width, int out_height, int out_width, int channels,
                                 int lanes, int top, int left, const T *x, const T *grad, float *partial) {
    int lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = BLOCK / lanes;
    int pack = blockIdx.x * lanes + lane, channel = pack * VECTOR;
    bool inside = pack < channels / VECTOR;
    float sums[TAPS * VECTOR];
#pragma unroll
    for (int k = 0; k < TAPS * VECTOR; k++) sums[k] = 0.0f;
    for (int r = blockIdx.y * lines + line; inside && r < rows; r += gridDim.y * lines) {
        int row = r % out_height;
        i64 image = r / out_height;
        for (int column = 0; column < out_width; column++) {
            float g[VECTOR];
            read(grad + ((i64)r * out_width + column) * channels + channel, g);
#pragma unroll
            for (int ky = 0; ky < KERNEL_HEIGHT; ky++) {
                int y = row * STRIDE_HEIGHT - top + ky * DILATION_HEIGHT;
                if (y < 0 || y >= height) continue;
#pragma unroll
                for (int kx = 0; kx < KERNEL_WIDTH; kx++) {
                    int at = column * STRIDE_WIDTH - left + kx * DILATION_WIDTH;
                    if (at < 0 || at >= width) continue;
                    float v[VECTOR];
                    read(x + ((image * height + y) * width + at) * channels + channel, v);
                    for (int k = 0; k < VECTOR; k++) sums[(ky * KERNEL_WIDTH + kx) * VECTOR + k] += v[k] * g[k];
                }
            }
        }
    }
    sum_over_rows(sums, lanes);
    if (inside && line == 0) {
        float *to = partial + (i64)blockIdx.y * TAPS * channels + channel;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++)
#pragma unroll
            for (int k = 0; k < VECTOR; k++) to[(i64)tap * channels + k] = sums[tap * VECTOR + k];
    }
}
