// cuDNN: convolutions channels last, straight from their definition. f32 is rounded to TF32 where the arithmetic that
// was asked for allows it, as tensor cores round it.

#include "simulator.hpp"

namespace {

enum : int { BAD_PARAM = 2000, NOT_SUPPORTED_BY_CUDNN = 3000 };
enum : int { FLOAT = 0, HALF = 2, BFLOAT16 = 9 };
enum : int { NHWC = 1 };
/// Bytes that every algorithm works in.
const size_t ROOM = 2048;
enum : int { DEFAULT_MATH = 0, TENSOR_OP_MATH = 1, TENSOR_OP_MATH_ALLOW_CONVERSION = 2, FMA_MATH = 3 };

/// Of a map [n, c, h, w] or a filter [k, c, r, s].
struct Described {
    int type, format, sizes[4];
    size_t elements() const { return (size_t)sizes[0] * sizes[1] * sizes[2] * sizes[3]; }
    size_t bytes() const { return elements() * (type == FLOAT ? 4 : 2); }
};

struct Convolution {
    int pad[2], stride[2], dilation[2], mode, compute, groups = 1, math = DEFAULT_MATH;
};

/// The three sides of a convolution, of which one is written.
struct Problem {
    Described x, w, y;
    Convolution conv;
};

std::vector<float> widened(const void *from, const Described &d, bool rounds) {
    std::vector<float> values(d.elements());
    for (size_t i = 0; i < values.size(); i++) {
        values[i] = d.type == FLOAT ? ((const float *)from)[i]
                    : d.type == HALF ? (float)((const f16 *)from)[i]
                                     : (float)((const bf16 *)from)[i];
        if (rounds && d.type == FLOAT) values[i] = tf32(values[i]);
    }
    return values;
}

/// alpha times the values, and beta times what was there; where beta is 0, that is not read.
void narrowed(void *to, const Described &d, const std::vector<float> &values, float alpha, float beta) {
    for (size_t i = 0; i < values.size(); i++) {
        float value = alpha * values[i];
        switch (d.type) {
        case FLOAT: ((float *)to)[i] = beta == 0 ? value : value + beta * ((float *)to)[i]; break;
        case HALF: ((f16 *)to)[i] = beta == 0 ? value : value + beta * ((f16 *)to)[i]; break;
        default: ((bf16 *)to)[i] = beta == 0 ? value : value + beta * ((bf16 *)to)[i];
        }
    }
}

int check(const Problem &p, const void *x, const void *w, const void *y, const void *room, size_t size) {
    const auto &c = p.conv;
    if (p.x.format != NHWC || p.w.format != NHWC || p.y.format != NHWC)
        return refuse(NOT_SUPPORTED_BY_CUDNN, "a convolution that is not channels last");
    if (p.x.type != p.w.type || p.x.type != p.y.type || c.compute != FLOAT || c.mode != 1)
        return refuse(BAD_PARAM, "a convolution of mixed types, or that is none");
    if (p.x.sizes[0] != p.y.sizes[0] || p.w.sizes[0] != p.y.sizes[1] || p.x.sizes[1] != p.w.sizes[1] * c.groups ||
        p.w.sizes[0] % c.groups)
        return refuse(BAD_PARAM, "a convolution whose channels do not fit");
    for (int axis = 0; axis < 2; axis++) {
        int window = (p.w.sizes[2 + axis] - 1) * c.dilation[axis] + 1;
        if (p.y.sizes[2 + axis] != (p.x.sizes[2 + axis] + 2 * c.pad[axis] - window) / c.stride[axis] + 1)
            return refuse(BAD_PARAM, "a convolution whose sizes do not fit");
    }
    if (!is_device_memory(x, p.x.bytes()) || !is_device_memory(w, p.w.bytes()) || !is_device_memory(y, p.y.bytes()) ||
        (size && !is_device_memory(room, size)))
        return refuse(BAD_PARAM, "a convolution beyond an allocation");
    if (!has_context()) return refuse(BAD_PARAM, "a convolution in a thread without a context");
    return SUCCESS;
}

enum Direction { FORWARD, DATA, FILTER };

/// Goes through every product of the convolution.
void convolve(const Problem &p, Direction direction, std::vector<float> &x, std::vector<float> &w,
              std::vector<float> &y) {
    const auto &c = p.conv;
    const int N = p.x.sizes[0], C = p.x.sizes[1], H = p.x.sizes[2], W = p.x.sizes[3];
    const int K = p.w.sizes[0], CG = p.w.sizes[1], R = p.w.sizes[2], S = p.w.sizes[3];
    const int P = p.y.sizes[2], Q = p.y.sizes[3], KG = K / c.groups;
    for (int n = 0; n < N; n++)
        for (int oh = 0; oh < P; oh++)
            for (int ow = 0; ow < Q; ow++)
                for (int r = 0; r < R; r++)
                    for (int s = 0; s < S; s++) {
                        int h = oh * c.stride[0] - c.pad[0] + r * c.dilation[0];
                        int v = ow * c.stride[1] - c.pad[1] + s * c.dilation[1];
                        if (h < 0 || h >= H || v < 0 || v >= W) continue;
                        float *pixel = &x[(((size_t)n * H + h) * W + v) * C];
                        float *out = &y[(((size_t)n * P + oh) * Q + ow) * K];
                        for (int k = 0; k < K; k++) {
                            float *in = pixel + k / KG * CG, *filter = &w[(((size_t)k * R + r) * S + s) * CG];
                            float g = out[k], sum = 0;
                            switch (direction) {
                            case FORWARD:
                                for (int i = 0; i < CG; i++) sum += in[i] * filter[i];
                                out[k] += sum;
                                break;
                            case DATA:
                                for (int i = 0; i < CG; i++) in[i] += g * filter[i];
                                break;
                            case FILTER:
                                for (int i = 0; i < CG; i++) filter[i] += g * in[i];
                            }
                        }
                    }
}

int run(void *handle, const Problem &p, Direction direction, const void *alpha, const void *x, const void *w,
        const void *y, void *room, size_t size, const void *beta) {
    if (int error = check(p, x, w, y, room, size)) return error;
    if (size < ROOM) return refuse(BAD_PARAM, "a convolution has %zu bytes to work in", size);
    float factor = *(const float *)alpha, kept = *(const float *)beta;
    enqueue(((Handle *)handle)->stream, [=] {
        bool rounds = p.conv.math == TENSOR_OP_MATH || p.conv.math == TENSOR_OP_MATH_ALLOW_CONVERSION;
        const Described *sides[] = {&p.x, &p.w, &p.y};
        const void *addresses[] = {x, w, y};
        int written = direction == FORWARD ? 2 : direction == DATA ? 0 : 1;
        std::vector<float> values[3];
        for (int side = 0; side < 3; side++)
            values[side] = side == written ? std::vector<float>(sides[side]->elements(), 0.0f)
                                           : widened(addresses[side], *sides[side], rounds);
        memset(room, 0xff, size);
        convolve(p, direction, values[0], values[1], values[2]);
        narrowed((void *)addresses[written], *sides[written], values[written], factor, kept);
    });
    return SUCCESS;
}

/// cudnnConvolution…AlgoPerf_t, alike for the three directions.
struct Measured {
    int algorithm, status;
    float time;
    size_t memory;
    int determinism, math, reserved[3];
};

/// Algorithms of every kind: the fastest is not deterministic, the next rounds, the third wants too much room.
int find(void *handle, const Problem &p, const void *x, const void *w, const void *y, int written, int wanted, int *count,
         Measured *found, void *room, size_t size) {
    if (int error = check(p, x, w, y, room, size)) return error;
    const Measured all[] = {{0, SUCCESS, 0.1f, 0, 0, p.conv.math, {}},
                            {1, SUCCESS, 0.2f, 1024, 1, TENSOR_OP_MATH_ALLOW_CONVERSION, {}},
                            {4, SUCCESS, 0.3f, (size_t)4 << 30, 1, p.conv.math, {}},
                            {1, SUCCESS, 0.4f, 4096, 1, p.conv.math, {}},
                            {5, NOT_SUPPORTED_BY_CUDNN, -1, 0, 1, p.conv.math, {}}};
    *count = std::min(wanted, 5);
    std::copy(all, all + *count, found);
    // Measuring writes over the result.
    finish(((Handle *)handle)->stream);
    const Described &d = written == 0 ? p.x : written == 1 ? p.w : p.y;
    memset((void *)(written == 0 ? x : written == 1 ? w : y), 0xff, d.bytes());
    return SUCCESS;
}

#define D(handle) (*(Described *)(handle))
#define C(handle) (*(Convolution *)(handle))

} // namespace

API int cudnnCreate(void **handle) { return *handle = new Handle{}, has_context() ? 0 : 2000; }
API int cudnnDestroy(void *handle) { return delete (Handle *)handle, SUCCESS; }
API int cudnnSetStream(void *handle, void *stream) { return ((Handle *)handle)->stream = stream, SUCCESS; }
API int cudnnCreateTensorDescriptor(void **made) { return *made = new Described{}, SUCCESS; }
API int cudnnCreateFilterDescriptor(void **made) { return *made = new Described{}, SUCCESS; }
API int cudnnCreateConvolutionDescriptor(void **made) { return *made = new Convolution{}, SUCCESS; }
API int cudnnDestroyTensorDescriptor(void *d) { return delete (Described *)d, SUCCESS; }
API int cudnnDestroyFilterDescriptor(void *d) { return delete (Described *)d, SUCCESS; }
API int cudnnDestroyConvolutionDescriptor(void *d) { return delete (Convolution *)d, SUCCESS; }
API int cudnnSetTensor4dDescriptor(void *d, int format, int type, int n, int c, int h, int w) {
    return D(d) = {type, format, {n, c, h, w}}, SUCCESS;
}
API int cudnnSetFilter4dDescriptor(void *d, int type, int format, int k, int c, int h, int w) {
    return D(d) = {type, format, {k, c, h, w}}, SUCCESS;
}
API int cudnnSetConvolution2dDescriptor(void *d, int ph, int pw, int sh, int sw, int dh, int dw, int mode,
                                        int compute) {
    int groups = C(d).groups, math = C(d).math;
    return C(d) = {{ph, pw}, {sh, sw}, {dh, dw}, mode, compute, groups, math}, SUCCESS;
}
API int cudnnSetConvolutionGroupCount(void *d, int groups) { return C(d).groups = groups, SUCCESS; }
API int cudnnSetConvolutionMathType(void *d, int math) { return C(d).math = math, SUCCESS; }
API int cudnnConvolutionForward(void *h, const void *alpha, void *xd, const void *x, void *wd, const void *w, void *cd,
                                int, void *room, size_t size, const void *beta, void *yd, void *y) {
    return run(h, {D(xd), D(wd), D(yd), C(cd)}, FORWARD, alpha, x, w, y, room, size, beta);
}
API int cudnnConvolutionBackwardData(void *h, const void *alpha, void *wd, const void *w, void *yd, const void *y,
                                     void *cd, int, void *room, size_t size, const void *beta, void *xd, void *x) {
    return run(h, {D(xd), D(wd), D(yd), C(cd)}, DATA, alpha, x, w, y, room, size, beta);
}
API int cudnnConvolutionBackwardFilter(void *h, const void *alpha, void *xd, const void *x, void *yd, const void *y,
                                       void *cd, int, void *room, size_t size, const void *beta, void *wd, void *w) {
    return run(h, {D(xd), D(wd), D(yd), C(cd)}, FILTER, alpha, x, w, y, room, size, beta);
}
API int cudnnFindConvolutionForwardAlgorithmEx(void *h, void *xd, const void *x, void *wd, const void *w, void *cd,
                                               void *yd, void *y, int wanted, int *count, Measured *found, void *room,
                                               size_t size) {
    return find(h, {D(xd), D(wd), D(yd), C(cd)}, x, w, y, 2, wanted, count, found, room, size);
}
API int cudnnFindConvolutionBackwardDataAlgorithmEx(void *h, void *wd, const void *w, void *yd, const void *y, void *cd,
                                                    void *xd, void *x, int wanted, int *count, Measured *found,
                                                    void *room, size_t size) {
    return find(h, {D(xd), D(wd), D(yd), C(cd)}, x, w, y, 0, wanted, count, found, room, size);
}
API int cudnnFindConvolutionBackwardFilterAlgorithmEx(void *h, void *xd, const void *x, void *yd, const void *y,
                                                      void *cd, void *wd, void *w, int wanted, int *count,
                                                      Measured *found, void *room, size_t size) {
    return find(h, {D(xd), D(wd), D(yd), C(cd)}, x, w, y, 1, wanted, count, found, room, size);
}
API int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *bytes) {
    return *bytes = ROOM, SUCCESS;
}
API int cudnnGetConvolutionBackwardDataWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *bytes) {
    return *bytes = ROOM, SUCCESS;
}
API int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *bytes) {
    return *bytes = ROOM, SUCCESS;
}

// candle's own convolutions, which Tallow does not use.
API int cudnnGetConvolutionForwardAlgorithm_v7(void *, void *, void *, void *, void *, int, int *, void *) {
    return refuse(NOT_SUPPORTED_BY_CUDNN, "candle's own convolution is not simulated");
}
API int cudnnSetTensor4dDescriptorEx(void *, int, int, int, int, int, int, int, int, int) {
    return refuse(NOT_SUPPORTED_BY_CUDNN, "candle's own convolution is not simulated");
}
