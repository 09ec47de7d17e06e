// Softmax cross-entropy with label smoothing and labels of two classes, on logits [rows, classes]: a block a row.

// loss[row], the row's gradient times *scale, and how many classes come before the first label: those with a larger
// logit, or an equal one and a smaller number. A label whose logit is NaN comes after all.
KERNEL cross_entropy(int classes, const T *logits, const u32 *first, const u32 *second, float share, float smoothing,
                     float mean, const float *scale, T *gradient, float *loss, u32 *rank) {
    i64 row = blockIdx.x;
    logits += row * classes;
    gradient += row * classes;
    u32 a = first[row], b = second[row];
    float largest = -__uint_as_float(0x7f800000u);
    for (int c = threadIdx.x; c < classes; c += BLOCK) {
        float z = to_float(logits[c]);
        if (z > largest || z != z) largest = z;
    }
    largest = block_max(largest);
    float own = to_float(logits[a]);
    float exps = 0.0f, plain = 0.0f, before = 0.0f;
    for (int c = threadIdx.x; c < classes; c += BLOCK) {
        float z = to_float(logits[c]);
        exps += expf(z - largest);
        plain += z - largest;
        before += z != z || z > own || (z == own && c < (int)a) ? 1.0f : 0.0f;
    }
    exps = block_sum(exps);
    plain = block_sum(plain);
    before = block_sum(before);
    float log_total = logf(exps), spread = smoothing / classes;
    if (threadIdx.x == 0) {
        float shown = share * (own - largest) + (1.0f - share) * (to_float(logits[b]) - largest);
        loss[row] = log_total - spread * plain - (1.0f - smoothing) * shown;
        rank[row] = own != own ? (u32)classes : (u32)before;
    }
    float factor = mean * (scale ? *scale : 1.0f);
    for (int c = threadIdx.x; c < classes; c += BLOCK) {
        float probability = expf(to_float(logits[c]) - largest) / exps;
        float shown = (c == (int)a ? share : 0.0f) + (c == (int)b ? 1.0f - share : 0.0f);
        gradient[c] = from_float<T>((probability - spread - (1.0f - smoothing) * shown) * factor);
    }
}

// Adds a batch to totals = [sum of losses, first, among the first five, rows]. One block.
KERNEL tally(int rows, const float *loss, const u32 *rank, double *totals) {
    __shared__ double shared[3][BLOCK];
    double sums[3] = {0.0, 0.0, 0.0};
    for (int row = threadIdx.x; row < rows; row += BLOCK) {
        sums[0] += loss[row];
        sums[1] += rank[row] < 1 ? 1.0 : 0.0;
        sums[2] += rank[row] < 5 ? 1.0 : 0.0;
    }
    for (int i = 0; i < 3; i++) shared[i][threadIdx.x] = sums[i];
    __syncthreads();
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        if (threadIdx.x < step)
            for (int i = 0; i < 3; i++) shared[i][threadIdx.x] += shared[i][threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        for (int i = 0; i < 3; i++) totals[i] += shared[i][0];
        totals[3] += rows;
    }
}
