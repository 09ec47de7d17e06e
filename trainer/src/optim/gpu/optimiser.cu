// All parameters in one launch: a block takes a chunk of one tensor. What a step needs of each is in a table. Results
// go to new memory, so that whoever still holds an old tensor sees it unchanged.

struct Entry {
    const float *weight, *gradient, *first, *second;
    float *new_weight, *new_first, *new_second;
    i64 count;
    float rate, decay, mean_factor, square_factor;
};
struct Chunk {
    u32 entry, number;
};
#define CHUNK 16384

// The elements of this block's chunk.
#define FOR_CHUNK(i)                                                                                                   \
    const Chunk chunk = chunks[blockIdx.x];                                                                            \
    const Entry e = entries[chunk.entry];                                                                              \
    const i64 end = min((i64)(chunk.number + 1) * CHUNK, e.count);                                                     \
    for (i64 i = (i64)chunk.number * CHUNK + threadIdx.x; i < end; i += BLOCK)

// Shares such as 1 - beta come as they are: made from a float beta they would lose half their digits.
// Steps are told by `control`: [factor on all gradients, whether to leave everything as it is, norm].

KERNEL sgd(const Entry *entries, const Chunk *chunks, const float *control, float momentum, int nesterov) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    FOR_CHUNK(i) {
        float w = e.weight[i], g = factor * e.gradient[i] + e.decay * w, v = g;
        if (momentum != 0.0f) {
            float old = e.first[i];
            v = momentum * old + g;
            e.new_first[i] = skip ? old : v;
        }
        float step = nesterov ? g + momentum * v : v;
        e.new_weight[i] = skip ? w : w - e.rate * step;
    }
}

KERNEL rmsprop(const Entry *entries, const Chunk *chunks, const float *control, float share, float momentum, float eps) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    FOR_CHUNK(i) {
        float w = e.weight[i], square = e.first[i], velocity = e.second[i];
        float g = factor * e.gradient[i] + e.decay * w;
        float new_square = square + share * (g * g - square);
        float new_velocity = momentum * velocity + e.rate * g / sqrtf(new_square + eps);
        e.new_first[i] = skip ? square : new_square;
        e.new_second[i] = skip ? velocity : new_velocity;
        e.new_weight[i] = skip ? w : w - new_velocity;
    }
}

// `decay` is what is kept of a weight, 1 - rate * decay; mean_factor is rate / (1 - beta1^t), square_factor 1 / (1 - beta2^t).
KERNEL adamw(const Entry *entries, const Chunk *chunks, const float *control, float share1, float share2, float eps) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    FOR_CHUNK(i) {
        float w = e.weight[i], mean = e.first[i], square = e.second[i], g = factor * e.gradient[i];
        float new_mean = mean + share1 * (g - mean);
        float new_square = square + share2 * (g * g - square);
        float step = e.mean_factor * new_mean / (sqrtf(new_square * e.square_factor) + eps);
        e.new_first[i] = skip ? mean : new_mean;
        e.new_second[i] = skip ? square : new_square;
        e.new_weight[i] = skip ? w : e.decay * w - step;
    }
}

// new_weight = weight + share * (gradient - weight): averages of weights, and of the gradients of several batches.
KERNEL lerp(const Entry *entries, const Chunk *chunks, float share) {
    FOR_CHUNK(i) {
        float w = e.weight[i];
        e.new_weight[i] = w + share * (e.gradient[i] - w);
    }
}

// partial[chunk] = sum of squares of the gradients.
KERNEL square_sums(const Entry *entries, const Chunk *chunks, double *partial) {
    float sum = 0.0f;
    FOR_CHUNK(i) sum += e.gradient[i] * e.gradient[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// From the sums to `control`; gradients carry the factor *scale, where there is one. `limit` is the largest norm, or 0
// for none. A step whose norm is no number is skipped, and counted in *skipped. One block.
KERNEL decide(int chunks, float limit, const double *partial, const float *scale, float *control, double *skipped) {
    __shared__ double shared[BLOCK];
    double sum = 0.0;
    for (int chunk = threadIdx.x; chunk < chunks; chunk += BLOCK) sum += partial[chunk];
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) shared[threadIdx.x] += shared[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        float scaled_by = scale ? *scale : 1.0f;
        double norm = sqrt(shared[0]) / scaled_by;
        bool finite = norm - norm == 0.0;
        float clip = limit > 0.0f && norm + 1e-6 > limit ? (float)(limit / (norm + 1e-6)) : 1.0f;
        control[0] = clip / scaled_by;
        control[1] = finite ? 0.0f : 1.0f;
        control[2] = (float)norm;
        if (!finite) skipped[0] += 1.0;
    }
}

// Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): state = [scale, steps since it changed]. It halves where
// a step was skipped and doubles after `interval` steps without.
KERNEL adapt_scale(int interval, const float *control, float *state) {
    if (threadIdx.x != 0) return;
    if (control[1] != 0.0f) {
        state[0] = state[0] * 0.5f;
        state[1] = 0.0f;
        return;
    }
    state[1] += 1.0f;
    if (state[1] >= interval) {
        state[0] = min(state[0] * 2.0f, 16777216.0f);
        state[1] = 0.0f;
    }
}
