// What every kernel file begins with: element types and their conversions, packed reads and writes, reductions.
// Compiled by NVRTC, which needs no header, or by a C++ compiler after emulator/host.hpp.
//
// A compilation is for one element type `T` and for packs of `VECTOR` elements, both macros. Arithmetic is in float.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

#ifndef EMULATED
__device__ __forceinline__ float half_to_float(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ u16 float_to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(f16 value) { return half_to_float(value.bits); }
__device__ __forceinline__ float to_float(bf16 value) { return __uint_as_float((u32)value.bits << 16); }

template <typename E> __device__ __forceinline__ E from_float(float value);
template <> __device__ __forceinline__ float from_float<float>(float value) { return value; }
template <> __device__ __forceinline__ f16 from_float<f16>(float value) { return f16{float_to_half(value)}; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float value) {
    u32 bits = __float_as_uint(value);
    // Rounds to nearest, ties to even; NaN stays NaN, which adding could turn into an infinity.
    if (value != value) return bf16{(u16)((bits >> 16) | 0x40u)};
    return bf16{(u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// `N` neighbouring elements, moved by one instruction.
template <typename E, int N> struct alignas(sizeof(E) * N) Pack {
    E values[N];
};

template <int N, typename E> __device__ __forceinline__ void read(const E *from, float (&to)[N]) {
    Pack<E, N> pack = *reinterpret_cast<const Pack<E, N> *>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = to_float(pack.values[i]);
}

template <int N, typename E> __device__ __forceinline__ void write(E *to, const float (&from)[N]) {
    Pack<E, N> pack;
#pragma unroll
    for (int i = 0; i < N; i++) pack.values[i] = from_float<E>(from[i]);
    *reinterpret_cast<Pack<E, N> *>(to) = pack;
}

// The places that a thread of a one-dimensional grid works on.
#define FOR_EACH(i, count)                                                                                             \
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += (i64)gridDim.x * blockDim.x)

// Threads of a block in every reduction.
#define BLOCK 256

// Begins a kernel. The bound lets the compiler use all registers that so many threads leave each other.
#define KERNEL extern "C" __launch_bounds__(BLOCK) __global__ void

// Sums over a block; every thread gets the sum.
__device__ inline float block_sum(float value) {
    __shared__ float sums[BLOCK];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) sums[threadIdx.x] += sums[threadIdx.x + step];
        __syncthreads();
    }
    float total = sums[0];
    __syncthreads();
    return total;
}

// The largest over a block; every thread gets it. NaN wins.
__device__ inline float block_max(float value) {
    __shared__ float largest[BLOCK];
    largest[threadIdx.x] = value;
    __syncthreads();
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            float other = largest[threadIdx.x + step];
            if (other > largest[threadIdx.x] || other != other) largest[threadIdx.x] = other;
        }
        __syncthreads();
    }
    float result = largest[0];
    __syncthreads();
    return result;
}

// For reductions over the rows of a matrix [rows, channels]: a block is `lanes` packs of channels wide and
// BLOCK / lanes rows high. Adds up `sums` over the block's rows; the threads of its first row get the result.
template <int COUNT> __device__ inline void sum_over_rows(float (&sums)[COUNT], int lanes) {
    __shared__ float shared[BLOCK];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        shared[threadIdx.x] = sums[i];
        __syncthreads();
        for (int step = BLOCK / 2; step >= lanes; step /= 2) {
            if (threadIdx.x < step) shared[threadIdx.x] += shared[threadIdx.x + step];
            __syncthreads();
        }
        sums[i] = shared[threadIdx.x];
        __syncthreads();
    }
}
