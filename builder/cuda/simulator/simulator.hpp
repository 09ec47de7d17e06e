// A GPU of the host's memory: what NVIDIA's libraries do for Tallow and candle, done by the CPU, a thread for each
// stream. It takes no call that a GPU would not take, its memory is fenced, and streams can be slowed down, so that a
// test finds what would corrupt a GPU's.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

/// The driver's and the libraries' results that are given here.
enum : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
};

/// Says what is wrong with a call, and that it was in vain.
template <typename... A> static int refuse(int result, const char *format, A... arguments) {
    char text[512];
    if constexpr (sizeof...(A) == 0) snprintf(text, sizeof text, "%s", format);
    else snprintf(text, sizeof text, format, arguments...);
    fprintf(stderr, "simulated GPU: %s\n", text);
    return result;
}

/// Whether this thread has bound a device; the driver's calls need it.
bool has_context();

/// Whether so many bytes at an address lie in one allocation on the device.
bool is_device_memory(const void *address, size_t bytes);

/// Has a stream do something after all that it has been given before.
void enqueue(void *stream, std::function<void()> work);

/// Waits until a stream has done all that it has been given.
void finish(void *stream);

/// A library's handle, which works on a stream.
struct Handle {
    void *stream;
};

/// A kernel of a module.
struct Kernel {
    std::string name;
    /// Number of its arguments, each of at most eight bytes.
    unsigned count;
    /// Runs it with the addresses of its arguments on a grid.
    void (*run)(void **arguments, const unsigned *grid, unsigned threads);
};

/// candle's kernel of this name; null where it is none of those that are simulated.
void (*candle_kernel(const std::string &name))(void **, const unsigned *, unsigned);

struct f16 {
    uint16_t bits;
    f16() = default;
    f16(float value) {
        _Float16 half = (_Float16)value;
        memcpy(&bits, &half, 2);
    }
    operator float() const {
        _Float16 half;
        memcpy(&half, &bits, 2);
        return (float)half;
    }
};

struct bf16 {
    uint16_t bits;
    bf16() = default;
    bf16(float value) {
        uint32_t whole;
        memcpy(&whole, &value, 4);
        // To the nearest, ties to even; what is no number stays none.
        bits = std::isnan(value) ? 0x7fff : (uint16_t)((whole + 0x7fff + ((whole >> 16) & 1)) >> 16);
    }
    operator float() const {
        uint32_t whole = (uint32_t)bits << 16;
        float value;
        memcpy(&value, &whole, 4);
        return value;
    }
};

/// A factor as tensor cores see it in TF32: ten bits after the point.
static inline float tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = (bits + 0xfff + ((bits >> 13) & 1)) & ~0x1fffu;
    memcpy(&value, &bits, 4);
    return value;
}
