// Pools over maps [images, height, width, channels]. `work` counts places of the map that is written, by packs of
// channels. Gradients are gathered by the pixel that gets them: no two threads add to one number.

struct Window {
    int height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width, top, left;
};
#define WINDOW                                                                                                         \
    int height, int width, int out_height, int out_width, int kernel_height, int kernel_width, int stride_height,     \
        int stride_width, int top, int left
#define THE_WINDOW                                                                                                     \
    Window { height, width, out_height, out_width, kernel_height, kernel_width, stride_height, stride_width, top, left }

// The pixels of the map that the window at a place covers.
struct Span {
    int first_row, end_row, first_column, end_column;
};
__device__ __forceinline__ Span covered(const Window &w, int row, int column) {
    int y = row * w.stride_height - w.top, x = column * w.stride_width - w.left;
    return Span{max(y, 0), min(y + w.kernel_height, w.height), max(x, 0), min(x + w.kernel_width, w.width)};
}

// The places whose window covers a pixel.
__device__ __forceinline__ Span covering(const Window &w, int row, int column) {
    int y = row + w.top, x = column + w.left;
    int first_row = y < w.kernel_height ? 0 : (y - w.kernel_height) / w.stride_height + 1;
    int first_column = x < w.kernel_width ? 0 : (x - w.kernel_width) / w.stride_width + 1;
    return Span{first_row, min(y / w.stride_height + 1, w.out_height), first_column,
                min(x / w.stride_width + 1, w.out_width)};
}

// Padding never wins, and NaN always does.
KERNEL max_pool(i64 work, int channels, WINDOW, const T *x, T *y) {
    Window w = THE_WINDOW;
    u32 packs = channels / VECTOR;
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, place = (u32)i / packs;
        i64 image = place / out_width / out_height;
        Span span = covered(w, place / out_width % out_height, place % out_width);
        const T *map = x + image * height * width * channels + pack * VECTOR;
        float best[VECTOR];
        for (int k = 0; k < VECTOR; k++) best[k] = -__uint_as_float(0x7f800000u);
        for (int row = span.first_row; row < span.end_row; row++)
            for (int column = span.first_column; column < span.end_column; column++) {
                float v[VECTOR];
                read(map + ((i64)row * width + column) * channels, v);
                for (int k = 0; k < VECTOR; k++)
                    if (v[k] > best[k] || v[k] != v[k]) best[k] = v[k];
            }
        write(y + i * VECTOR, best);
    }
}

// All of an output's gradient goes to the first pixel that was the maximum, row by row.
KERNEL max_pool_gradient(i64 work, int channels, WINDOW, const T *x, const T *y, const T *grad, T *dx) {
    Window w = THE_WINDOW;
    u32 packs = channels / VECTOR;
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, place = (u32)i / packs;
        int column = place % width, row = place / width % height;
        i64 image = place / width / height;
        Span places = covering(w, row, column);
        const T *map = x + image * height * width * channels + pack * VECTOR;
        float here[VECTOR], sums[VECTOR];
        read(x + i * VECTOR, here);
        for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
        for (int out_row = places.first_row; out_row < places.end_row; out_row++)
            for (int out_column = places.first_column; out_column < places.end_column; out_column++) {
                i64 at = ((image * out_height + out_row) * out_width + out_column) * channels + pack * VECTOR;
                float best[VECTOR], g[VECTOR];
                read(y + at, best);
                read(grad + at, g);
                bool wins[VECTOR];
                for (int k = 0; k < VECTOR; k++)
                    wins[k] = here[k] == best[k] || (here[k] != here[k] && best[k] != best[k]);
                Span span = covered(w, out_row, out_column);
                for (int r = span.first_row; r <= row; r++)
                    for (int c = span.first_column; c < (r == row ? column : span.end_column); c++) {
                        float v[VECTOR];
                        read(map + ((i64)r * width + c) * channels, v);
                        for (int k = 0; k < VECTOR; k++)
                            if (v[k] == best[k] || (v[k] != v[k] && best[k] != best[k])) wins[k] = false;
                    }
                for (int k = 0; k < VECTOR; k++)
                    if (wins[k]) sums[k] += g[k];
            }
        write(dx + i * VECTOR, sums);
    }
}

// Padding counts as zeros.
KERNEL avg_pool(i64 work, int channels, WINDOW, const T *x, T *y) {
    Window w = THE_WINDOW;
    u32 packs = channels / VECTOR;
    float share = 1.0f / (kernel_height * kernel_width);
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, place = (u32)i / packs;
        i64 image = place / out_width / out_height;
        Span span = covered(w, place / out_width % out_height, place % out_width);
        const T *map = x + image * height * width * channels + pack * VECTOR;
        float sums[VECTOR];
        for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
        for (int row = span.first_row; row < span.end_row; row++)
            for (int column = span.first_column; column < span.end_column; column++) {
                float v[VECTOR];
                read(map + ((i64)row * width + column) * channels, v);
                for (int k = 0; k < VECTOR; k++) sums[k] += v[k];
            }
        for (int k = 0; k < VECTOR; k++) sums[k] *= share;
        write(y + i * VECTOR, sums);
    }
}

KERNEL avg_pool_gradient(i64 work, int channels, WINDOW, const T *grad, T *dx) {
    Window w = THE_WINDOW;
    u32 packs = channels / VECTOR;
    float share = 1.0f / (kernel_height * kernel_width);
    FOR_EACH(i, work) {
        u32 pack = (u32)i % packs, place = (u32)i / packs;
        i64 image = place / width / height;
        Span places = covering(w, place / width % height, place % width);
        float sums[VECTOR];
        for (int k = 0; k < VECTOR; k++) sums[k] = 0.0f;
        for (int row = places.first_row; row < places.end_row; row++)
            for (int column = places.first_column; column < places.end_column; column++) {
                float g[VECTOR];
                read(grad + ((image * out_height + row) * out_width + column) * channels + pack * VECTOR, g);
                for (int k = 0; k < VECTOR; k++) sums[k] += g[k];
            }
        for (int k = 0; k < VECTOR; k++) sums[k] *= share;
        write(dx + i * VECTOR, sums);
    }
}
