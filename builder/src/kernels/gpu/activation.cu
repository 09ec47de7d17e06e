// Activations and their derivatives, for the kernels that apply them alone or after something else.
// The numbers are those of `code` in activation.rs.
enum { IDENTITY, RELU, RELU6, LEAKY_RELU, SIGMOID, TANH, SILU, HARD_SWISH };

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// `slope` is that of leaky ReLU and of the sigmoid. NaN stays NaN: comparisons with it are false.
__device__ __forceinline__ float activate(int kind, float slope, float x) {
    switch (kind) {
    case RELU: return x < 0.0f ? 0.0f : x;
    case RELU6: return x < 0.0f ? 0.0f : (x > 6.0f ? 6.0f : x);
    case LEAKY_RELU: return x > 0.0f ? x : slope * x;
    case SIGMOID: return sigmoid(slope * x);
    case TANH: return tanhf(x);
    case SILU: return x * sigmoid(x);
    case HARD_SWISH: {
        float gate = x + 3.0f;
        gate = gate < 0.0f ? 0.0f : (gate > 6.0f ? 6.0f : gate);
        return x * (gate * (1.0f / 6.0f));
    }
    default: return x;
    }
}

// At input x and output y; each kind uses one of the two, `uses_output` says which.
__device__ __forceinline__ float derivative(int kind, float slope, float x, float y) {
    switch (kind) {
    case RELU: return y > 0.0f ? 1.0f : 0.0f;
    case RELU6: return y > 0.0f && y < 6.0f ? 1.0f : 0.0f;
    case LEAKY_RELU: return x > 0.0f ? 1.0f : slope;
    case SIGMOID: return slope * y * (1.0f - y);
    case TANH: return 1.0f - y * y;
    case SILU: {
        float s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
    case HARD_SWISH: return x <= -3.0f ? 0.0f : (x >= 3.0f ? 1.0f : (2.0f * x + 3.0f) * (1.0f / 6.0f));
    default: return 1.0f;
    }
}

__device__ __forceinline__ bool uses_output(int kind) {
    return kind == RELU || kind == RELU6 || kind == SIGMOID || kind == TANH;
}
