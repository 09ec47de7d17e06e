// Filters between the order in which they are kept, [outer, inner, taps] in float, and the one in which kernels read
// them, [outer, taps, inner]; and borders of maps.

// `flip` reverses the taps: a convolution with them is then the gradient of one of stride 1.
KERNEL pack_filter(i64 count, int inner, int taps, int flip, const float *from, T *to) {
    FOR_EACH(i, count) {
        u32 rest = (u32)i / inner, n = (u32)i % inner;
        u32 tap = rest % taps, outer = rest / taps;
        if (flip) tap = taps - 1 - tap;
        to[i] = from_float<T>(from[((i64)outer * inner + n) * taps + tap]);
    }
}

KERNEL unpack_filter(i64 count, int inner, int taps, const T *from, float *to) {
    FOR_EACH(i, count) {
        u32 rest = (u32)i / taps, tap = (u32)i % taps;
        u32 n = rest % inner, outer = rest / inner;
        to[i] = to_float(from[((i64)outer * taps + tap) * inner + n]);
    }
}

// Shifts a map down and to the right by (top, left) into one of another size: pads with zeros, or crops.
KERNEL place(i64 packs, int height, int width, int to_height, int to_width, int channels, int top, int left,
             const T *from, T *to) {
    u32 row_packs = channels / VECTOR;
    FOR_EACH(i, packs) {
        u32 pack = (u32)i % row_packs, at = (u32)i / row_packs;
        int column = (int)(at % to_width) - left, row = (int)(at / to_width % to_height) - top;
        i64 image = at / to_width / to_height;
        float v[VECTOR];
        for (int k = 0; k < VECTOR; k++) v[k] = 0.0f;
        if (row >= 0 && row < height && column >= 0 && column < width)
            read(from + ((image * height + row) * width + column) * channels + pack * VECTOR, v);
        write(to + i * VECTOR, v);
    }
}
