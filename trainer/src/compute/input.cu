// From a batch's 8-bit pixels to the network's input.

__device__ inline void normalised(const u8 *pixel, const float (&mean)[3], const float (&std)[3], float (&v)[3]) {
    // As the host does it; a division is no multiplication by the reciprocal.
    for (int c = 0; c < 3; c++) v[c] = ((float)pixel[c] / 255.0f - mean[c]) / std[c];
}

// bytes and input: [images, height * width, 3]. `mirrored` has a flag for each sample, which is `views` images.
// `share` is what an image keeps where it is blended with the one at its place counted from the end, else 1.
KERNEL normalise(i64 pixels, int images, int size, int width, int views, float share, float rest, float mean0,
                 float mean1, float mean2, float std0, float std1, float std2, const u8 *bytes, const u8 *mirrored,
                 T *input) {
    const float mean[3] = {mean0, mean1, mean2}, std[3] = {std0, std1, std2};
    FOR_EACH(i, pixels) {
        int image = (int)((u32)i / (u32)size), place = (int)((u32)i % (u32)size);
        int column = place % width, opposite = place - column + width - 1 - column;
        float v[3];
        normalised(bytes + 3 * ((i64)image * size + (mirrored[image / views] ? opposite : place)), mean, std, v);
        int partner = images - 1 - image;
        if (share != 1.0f && partner != image) {
            float w[3];
            normalised(bytes + 3 * ((i64)partner * size + (mirrored[partner / views] ? opposite : place)), mean, std, w);
            for (int c = 0; c < 3; c++) v[c] = v[c] * share + w[c] * rest;
        }
        for (int c = 0; c < 3; c++) input[3 * i + c] = from_float<T>(v[c]);
    }
}
