// All parameters in one launch (`table.cu`). Results go to new memory, so that whoever still holds an old tensor sees it
// unchanged.

// What a step needs of a parameter.
struct Parameter {
    const float *weight, *gradient, *first, *second;
    float *new_weight, *new_first, *new_second;
    // The rate of the step, and weight decay in the optimiser's form.
    float rate, decay;

    __device__ Parameter(const Row &row)
        : weight(floats(row, 0)), gradient(floats(row, 1)), first(floats(row, 2)), second(floats(row, 3)),
          new_weight(floats(row, 4)), new_first(floats(row, 5)), new_second(floats(row, 6)), rate(row.numbers[0]),
          decay(row.numbers[1]) {}

    __device__ static float *floats(const Row &row, int place) { return (float *)row.tensors[place]; }
};

// Shares such as 1 - beta come as they are: made from a float beta they would lose half their digits.
// Steps are told by `control`: [factor on all gradients, whether to leave everything as it is, norm].

KERNEL sgd(const Row *rows, int count, const float *control, float momentum, int nesterov) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    const Row row = row_of_block(rows, count);
    const Parameter p(row);
    FOR_CHUNK(i, row) {
        float w = p.weight[i], g = factor * p.gradient[i] + p.decay * w, v = g;
        if (momentum != 0.0f) {
            float old = p.first[i];
            v = momentum * old + g;
            p.new_first[i] = skip ? old : v;
        }
        float step = nesterov ? g + momentum * v : v;
        p.new_weight[i] = skip ? w : w - p.rate * step;
    }
}

KERNEL rmsprop(const Row *rows, int count, const float *control, float share, float momentum, float eps) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    const Row row = row_of_block(rows, count);
    const Parameter p(row);
    FOR_CHUNK(i, row) {
        float w = p.weight[i], square = p.first[i], velocity = p.second[i];
        float g = factor * p.gradient[i] + p.decay * w;
        float new_square = square + share * (g * g - square);
        float new_velocity = momentum * velocity + p.rate * g / sqrtf(new_square + eps);
        p.new_first[i] = skip ? square : new_square;
        p.new_second[i] = skip ? velocity : new_velocity;
        p.new_weight[i] = skip ? w : w - new_velocity;
    }
}

// `decay` is what is kept of a weight, 1 - rate * decay. Averages are corrected by 1 - beta^t, where t counts this step
// and those that were `taken` before it; the logarithms of both betas keep the digits that such a difference loses.
KERNEL adamw(const Row *rows, int count, const float *control, float share1, float share2, float log1, float log2,
             float eps, const i64 *taken) {
    const float factor = control[0];
    const bool skip = control[1] != 0.0f;
    const Row row = row_of_block(rows, count);
    const Parameter p(row);
    const double t = (double)(taken[row.slot] + 1);
    const float mean_factor = (float)(p.rate / -expm1(t * log1)), square_factor = (float)(1.0 / -expm1(t * log2));
    FOR_CHUNK(i, row) {
        float w = p.weight[i], mean = p.first[i], square = p.second[i], g = factor * p.gradient[i];
        float new_mean = mean + share1 * (g - mean);
        float new_square = square + share2 * (g * g - square);
        float step = mean_factor * new_mean / (sqrtf(new_square * square_factor) + eps);
        p.new_first[i] = skip ? mean : new_mean;
        p.new_second[i] = skip ? square : new_square;
        p.new_weight[i] = skip ? w : p.decay * w - step;
    }
}

// One more step is taken of every parameter in the table, if it was not skipped. One block.
KERNEL count_steps(const Row *rows, int count, const float *control, i64 *taken) {
    if (control[1] != 0.0f) return;
    for (int i = threadIdx.x; i < count; i += BLOCK) taken[rows[i].slot]++;
}

// new_weight = weight + share * (gradient - weight): averages of weights, and of the gradients of several batches.
KERNEL lerp(const Row *rows, int count, float share) {
    const Row row = row_of_block(rows, count);
    const Parameter p(row);
    FOR_CHUNK(i, row) {
        float w = p.weight[i];
        p.new_weight[i] = w + share * (p.gradient[i] - w);
    }
}

// partial[chunk] = sum of squares of the gradients.
KERNEL square_sums(const Row *rows, int count, double *partial) {
    float sum = 0.0f;
    const Row row = row_of_block(rows, count);
    const Parameter p(row);
    FOR_CHUNK(i, row) sum += p.gradient[i] * p.gradient[i];
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
