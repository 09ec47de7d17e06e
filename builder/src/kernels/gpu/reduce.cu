// Sums over pixels, and over all rows of a matrix [rows, channels]. Every sum is dealt out in a fixed way, so that a
// result does not depend on the order in which blocks run.

// to[image, channel] = factor * sum over pixels of a * b, or of a where there is no b.
// Grid: packs of channels by `lanes`, then images.
KERNEL sum_pixels(int pixels, int channels, int lanes, float factor, const T *a, const T *b, T *to) {
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes;
    int pack = blockIdx.x * lanes + lane;
    bool inside = pack < channels / VECTOR;
    i64 base = (i64)blockIdx.y * pixels * channels + pack * VECTOR;
    float sums[VECTOR];
#pragma unroll
    for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
    for (int pixel = row; inside && pixel < pixels; pixel += BLOCK / lanes) {
        float v[VECTOR];
        read(a + base + (i64)pixel * channels, v);
        if (b) {
            float w[VECTOR];
            read(b + base + (i64)pixel * channels, w);
#pragma unroll
            for (int k = 0; k < VECTOR; k++) v[k] *= w[k];
        }
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sums[k] += v[k];
    }
    sum_over_rows(sums, lanes);
    if (inside && row == 0) {
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sums[k] *= factor;
        write(to + (i64)blockIdx.y * channels + pack * VECTOR, sums);
    }
}

// partial[split, channel]: sums over a share of the rows. Grid: packs of channels by `lanes`, then splits.
KERNEL sum_rows(i64 rows, int channels, int lanes, const T *x, float *partial) {
    int lane = threadIdx.x % lanes, row = threadIdx.x / lanes, height = BLOCK / lanes;
    int pack = blockIdx.x * lanes + lane;
    bool inside = pack < channels / VECTOR;
    float sums[VECTOR];
#pragma unroll
    for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
    for (i64 r = (i64)blockIdx.y * height + row; inside && r < rows; r += (i64)gridDim.y * height) {
        float v[VECTOR];
        read(x + r * channels + pack * VECTOR, v);
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sums[k] += v[k];
    }
    sum_over_rows(sums, lanes);
    if (inside && row == 0) write(partial + (i64)blockIdx.y * channels + pack * VECTOR, sums);
}

// to[i] = sum over splits of partial[split, i]. A block is 32 sums wide.
KERNEL finish_sums(int splits, int width, const float *partial, float *to) {
    __shared__ double shared[BLOCK];
    int i = blockIdx.x * 32 + threadIdx.x % 32;
    double sum = 0.0;
    for (int split = threadIdx.x / 32; i < width && split < splits; split += BLOCK / 32)
        sum += partial[(i64)split * width + i];
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int step = BLOCK / 2; step >= 32; step /= 2) {
        if (threadIdx.x < step) shared[threadIdx.x] += shared[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x < 32 && i < width) to[i] = (float)shared[threadIdx.x];
}
