// CUDA's language on the host, as far as the kernels use it: blocks run one after another, and the threads of a block
// are fibres that hand on at every barrier. For tests of what kernels compute, not of how fast.

#define EMULATED 1
#include <cmath>
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

// The threads of the block under way. They are made once and serve one block after another.
struct Fibres {
    std::vector<ucontext_t> contexts;
    std::vector<std::unique_ptr<char[]>> stacks;
    std::vector<bool> done;
    ucontext_t scheduler;
    unsigned current;
    const std::function<void()> *body;
};
static thread_local Fibres fibres;
static const size_t STACK = 64 * 1024;

static inline void __syncthreads() { swapcontext(&fibres.contexts[fibres.current], &fibres.scheduler); }

static void fibre() {
    (*fibres.body)();
    fibres.done[fibres.current] = true;
    // Returning would end the thread: the context has no successor.
    swapcontext(&fibres.contexts[fibres.current], &fibres.scheduler);
}

static void run_block(unsigned threads, const std::function<void()> &body) {
    fibres.body = &body;
    fibres.contexts.resize(threads);
    fibres.done.assign(threads, false);
    while (fibres.stacks.size() < threads) fibres.stacks.emplace_back(new char[STACK]);
    for (unsigned thread = 0; thread < threads; thread++) {
        ucontext_t &context = fibres.contexts[thread];
        getcontext(&context);
        context.uc_stack.ss_sp = fibres.stacks[thread].get();
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, fibre, 0);
    }
    for (bool running = true; running;) {
        running = false;
        for (unsigned thread = 0; thread < threads; thread++) {
            if (fibres.done[thread]) continue;
            running = true;
            fibres.current = thread;
            threadIdx = {thread, 0, 0};
            swapcontext(&fibres.scheduler, &fibres.contexts[thread]);
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
