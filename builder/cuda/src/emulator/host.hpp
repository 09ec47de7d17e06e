// CUDA's language on the host, as far as the kernels use it: blocks run one after another, and the threads of a block
// are fibres that hand on at every barrier. For tests of what kernels compute, not of how fast.

#define EMULATED 1
// Fortified, longjmp refuses to go from one stack to another.
#undef _FORTIFY_SOURCE
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __launch_bounds__(...)

struct Dim {
    unsigned x, y, z;
};
static thread_local Dim threadIdx, blockIdx, blockDim, gridDim;

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
static inline float half_to_float(unsigned short bits) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return (float)half;
}
static inline unsigned short float_to_half(float value) {
    _Float16 half = (_Float16)value;
    unsigned short bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
template <typename A> static inline A min(A a, A b) { return a < b ? a : b; }
template <typename A> static inline A max(A a, A b) { return a > b ? a : b; }

// A thread of a block: made once, it serves one block after another. It begins on its own stack by a context and goes on
// by jumps, for a switch of contexts asks the system each time.
struct Fibre {
    std::unique_ptr<char[]> stack;
    jmp_buf place;
    bool done;
};
struct Fibres {
    std::vector<Fibre> all;
    jmp_buf scheduler;
    unsigned current;
    const std::function<void()> *body;
};
static thread_local Fibres fibres;
static const size_t STACK = 64 * 1024;

static void __syncthreads() {
    if (!_setjmp(fibres.all[fibres.current].place)) _longjmp(fibres.scheduler, 1);
}

static void serve() {
    for (;;) {
        (*fibres.body)();
        fibres.all[fibres.current].done = true;
        __syncthreads();
    }
}

// Runs the current fibre to its next barrier, or to its end.
__attribute__((noinline)) static void go_on() {
    if (_setjmp(fibres.scheduler)) return;
    Fibre &fibre = fibres.all[fibres.current];
    if (fibre.stack) _longjmp(fibre.place, 1);
    fibre.stack.reset(new char[STACK]);
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = fibre.stack.get();
    start.uc_stack.ss_size = STACK;
    start.uc_link = nullptr;
    makecontext(&start, serve, 0);
    setcontext(&start);
}

static void run_block(unsigned threads, const std::function<void()> &body) {
    fibres.body = &body;
    if (fibres.all.size() < threads) fibres.all.resize(threads);
    for (unsigned thread = 0; thread < threads; thread++) fibres.all[thread].done = false;
    for (bool running = true; running;) {
        running = false;
        for (unsigned thread = 0; thread < threads; thread++) {
            if (fibres.all[thread].done) continue;
            running = true;
            fibres.current = thread;
            threadIdx = {thread, 0, 0};
            go_on();
        }
    }
}

template <typename... Arguments, size_t... I>
static void call(void (*kernel)(Arguments...), void **arguments, std::index_sequence<I...>) {
    kernel(*reinterpret_cast<std::remove_reference_t<Arguments> *>(arguments[I])...);
}

template <typename... Arguments>
static void emulate(void (*kernel)(Arguments...), void **arguments, const unsigned *grid, unsigned threads,
                    bool barriers) {
    std::function<void()> body = [&] { call(kernel, arguments, std::index_sequence_for<Arguments...>{}); };
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                if (barriers) {
                    run_block(threads, body);
                    continue;
                }
                for (unsigned thread = 0; thread < threads; thread++) {
                    threadIdx = {thread, 0, 0};
                    body();
                }
            }
}

template <typename... Arguments> constexpr unsigned parameters(void (*)(Arguments...)) { return sizeof...(Arguments); }
