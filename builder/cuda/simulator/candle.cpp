// Those of candle's kernels that Tallow calls, by their names and arguments (candle-kernels 0.11).

#include <type_traits>

#include "simulator.hpp"

namespace {

/// The place in memory of an element's number, in a tensor of these sizes and strides.
size_t place(size_t i, size_t dims, const size_t *info) {
    if (!info) return i;
    size_t at = 0;
    for (size_t d = dims; d-- > 0; i /= info[d]) at += i % info[d] * info[dims + d];
    return at;
}

template <typename T> T argument(void **arguments, int i) { return *(T *)arguments[i]; }

template <typename S, typename T> void cast(void **a, const unsigned *, unsigned) {
    size_t count = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const S *from = argument<const S *>(a, 3);
    T *to = argument<T *>(a, 4);
    for (size_t i = 0; i < count; i++) {
        S value = from[place(i, dims, info)];
        if constexpr (std::is_same_v<S, f16> || std::is_same_v<S, bf16>) to[i] = (T)(float)value;
        else if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) to[i] = T((float)value);
        else to[i] = (T)value;
    }
}

template <typename T, T (*F)(T)> void unary(void **a, const unsigned *, unsigned) {
    size_t count = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const T *from = argument<const T *>(a, 3);
    T *to = argument<T *>(a, 4);
    for (size_t i = 0; i < count; i++) to[i] = F(from ? from[place(i, dims, info)] : to[i]);
}

template <typename T, T (*F)(T, T)> void binary(void **a, const unsigned *, unsigned) {
    size_t count = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const T *left = argument<const T *>(a, 3), *right = argument<const T *>(a, 4);
    T *to = argument<T *>(a, 5);
    for (size_t i = 0; i < count; i++) {
        size_t l = i, r = i, rest = i;
        if (info) {
            l = r = 0;
            for (size_t d = dims; d-- > 0; rest /= info[d]) {
                l += rest % info[d] * info[dims + d];
                r += rest % info[d] * info[2 * dims + d];
            }
        }
        to[i] = F(left[l], right[r]);
    }
}

template <typename T> void affine(void **a, const unsigned *, unsigned) {
    size_t count = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    const T *from = argument<const T *>(a, 3);
    T *to = argument<T *>(a, 4);
    T factor = argument<T>(a, 5), summand = argument<T>(a, 6);
    for (size_t i = 0; i < count; i++) to[i] = (from ? from[place(i, dims, info)] : to[i]) * factor + summand;
}

template <typename T> void fill(void **a, const unsigned *, unsigned) {
    T *to = argument<T *>(a, 0), value = argument<T>(a, 1);
    for (size_t i = 0; i < argument<size_t>(a, 2); i++) to[i] = value;
}

template <typename T> void const_set(void **a, const unsigned *, unsigned) {
    size_t count = argument<size_t>(a, 0), dims = argument<size_t>(a, 1);
    const size_t *info = argument<const size_t *>(a, 2);
    T value = argument<T>(a, 3), *to = argument<T *>(a, 4);
    for (size_t i = 0; i < count; i++) to[place(i, dims, info)] = value;
}

template <typename T> void copy2d(void **a, const unsigned *, unsigned) {
    const T *from = argument<const T *>(a, 0);
    T *to = argument<T *>(a, 1);
    uint32_t rows = argument<uint32_t>(a, 2), columns = argument<uint32_t>(a, 3);
    uint32_t from_stride = argument<uint32_t>(a, 4), to_stride = argument<uint32_t>(a, 5);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < columns; j++) to[i * to_stride + j] = from[i * from_stride + j];
}

/// A result from each block, or, where they are `small`, from each thread: then the first argument counts results.
template <typename T, T (*F)(T, T), bool small = false> void reduce(void **a, const unsigned *grid, unsigned) {
    size_t count = argument<size_t>(a, 0), each = argument<size_t>(a, 1), dims = argument<size_t>(a, 2);
    const size_t *info = argument<const size_t *>(a, 3);
    const T *from = argument<const T *>(a, 4);
    T *to = argument<T *>(a, 5);
    for (size_t result = 0; result < (small ? count : grid[0]); result++) {
        size_t start = result * each, stop = small ? start + each : std::min(start + each, count);
        T value = from[place(start, dims, info)];
        for (size_t i = start + 1; i < stop; i++) value = F(value, from[place(i, dims, info)]);
        to[result] = value;
    }
}

using Run = void (*)(void **, const unsigned *, unsigned);

template <typename T> T add(T a, T b) { return a + b; }
template <typename T> T subtract(T a, T b) { return a - b; }
template <typename T> T multiply(T a, T b) { return a * b; }
template <typename T> T divide(T a, T b) { return a / b; }
template <typename T> T larger(T a, T b) { return a < b ? b : a; }
template <typename T> T smaller(T a, T b) { return b < a ? b : a; }
template <typename T> T same(T a) { return a; }
template <typename T> T magnitude(T a) { return a < T(0) ? T(-a) : a; }
template <typename T> T square(T a) { return a * a; }
template <typename T> T root(T a) { return std::sqrt(a); }
template <typename T> T inverse(T a) { return T(1) / a; }
template <typename T> T negative(T a) { return -a; }
template <typename T> T exponential(T a) { return std::exp(a); }
template <typename T> T logarithm(T a) { return std::log(a); }

/// Those of an element type, for anything and for numbers with a point.
template <typename T> void of_any(std::map<std::string, Run> &all, const std::string &type) {
    all["ucopy_" + type] = unary<T, same<T>>;
    all["fill_" + type] = fill<T>;
    all["const_set_" + type] = const_set<T>;
    all["copy2d_" + type] = copy2d<T>;
    all["cast_" + type + "_f32"] = cast<T, float>;
    all["cast_" + type + "_f64"] = cast<T, double>;
    all["cast_" + type + "_u8"] = cast<T, uint8_t>;
    all["cast_" + type + "_u32"] = cast<T, uint32_t>;
    all["cast_" + type + "_i64"] = cast<T, int64_t>;
    all["cast_" + type + "_f16"] = cast<T, f16>;
    all["cast_" + type + "_bf16"] = cast<T, bf16>;
}
template <typename T> void of_numbers(std::map<std::string, Run> &all, const std::string &type) {
    of_any<T>(all, type);
    all["badd_" + type] = binary<T, add<T>>;
    all["bsub_" + type] = binary<T, subtract<T>>;
    all["bmul_" + type] = binary<T, multiply<T>>;
    all["bdiv_" + type] = binary<T, divide<T>>;
    all["bmaximum_" + type] = binary<T, larger<T>>;
    all["bminimum_" + type] = binary<T, smaller<T>>;
    all["affine_" + type] = affine<T>;
    all["uabs_" + type] = unary<T, magnitude<T>>;
    all["usqr_" + type] = unary<T, square<T>>;
    all["usqrt_" + type] = unary<T, root<T>>;
    all["urecip_" + type] = unary<T, inverse<T>>;
    all["uneg_" + type] = unary<T, negative<T>>;
    all["uexp_" + type] = unary<T, exponential<T>>;
    all["ulog_" + type] = unary<T, logarithm<T>>;
    all["fast_sum_" + type] = reduce<T, add<T>>;
    all["fast_sum_small_" + type] = reduce<T, add<T>, true>;
    all["fast_max_" + type] = reduce<T, larger<T>>;
    all["fast_min_" + type] = reduce<T, smaller<T>>;
}

} // namespace

Run candle_kernel(const std::string &name) {
    static const std::map<std::string, Run> all = [] {
        std::map<std::string, Run> all;
        of_numbers<float>(all, "f32");
        of_numbers<double>(all, "f64");
        of_any<f16>(all, "f16");
        of_any<bf16>(all, "bf16");
        of_any<uint8_t>(all, "u8");
        of_any<uint32_t>(all, "u32");
        of_any<int64_t>(all, "i64");
        return all;
    }();
    auto found = all.find(name);
    return found == all.end() ? nullptr : found->second;
}
