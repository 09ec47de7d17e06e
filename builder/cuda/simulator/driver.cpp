// The driver: devices, contexts, modules, launches. `memory` and `streams` are its other parts.

#include <dlfcn.h>

#include "driver.hpp"

namespace {

int devices() { return (int)setting("SIMULATED_GPUS", 1); }

/// Parameters of a kernel in PTX, whose list begins at `at`.
unsigned parameters(const std::string &ptx, size_t at) {
    unsigned count = 0;
    for (size_t end = ptx.find(')', at); (at = ptx.find(".param", at)) < end; at++) count++;
    return count;
}

/// A module: of a library that the compiler made, or candle's PTX.
struct Module {
    void *library;
    std::string ptx;
    std::mutex mutex;
    std::map<std::string, Kernel> kernels;
};

thread_local void *context;

/// How often each of the driver's calls was made, which SIMULATED_GPU_COUNTS prints at the end.
struct Counts {
    std::mutex mutex;
    std::map<std::string, size_t> calls;
    void add(const char *call) {
        std::lock_guard<std::mutex> held(mutex);
        calls[call]++;
    }
    ~Counts() {
        if (!getenv("SIMULATED_GPU_COUNTS")) return;
        for (const auto &[call, count] : calls) fprintf(stderr, "simulated GPU: %zu × %s\n", count, call.c_str());
    }
};

} // namespace

size_t setting(const char *name, size_t otherwise) {
    const char *value = getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

int in_context(const char *call) {
    static Counts counts;
    counts.add(call);
    return context ? SUCCESS : refuse(INVALID_CONTEXT, "%s in a thread without a context", call);
}

bool has_context() { return context; }

API int cuInit(unsigned) { return SUCCESS; }
API int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
API int cuDeviceGetCount(int *count) { return *count = devices(), SUCCESS; }
API int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= devices()) return INVALID_DEVICE;
    return *device = ordinal, SUCCESS;
}
API int cuDeviceGetName(char *name, int length, int device) {
    return snprintf(name, length, "Simulated GPU %d", device), SUCCESS;
}
API int cuDeviceGetUuid_v2(char *uuid, int device) {
    memcpy(uuid, "simulated GPU  ", 15);
    return uuid[15] = (char)device, SUCCESS;
}
API int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 8; break;   // multiprocessors
    case 39: *value = 2048; break; // threads of one
    case 75: *value = 9; break;   // compute capability
    case 76: *value = 0; break;
    case 115: *value = 1; break;  // memory pools
    default: return refuse(NOT_SUPPORTED, "attribute %d is not simulated", attribute);
    }
    return SUCCESS;
}
API int cuDevicePrimaryCtxRetain(void **made, int device) { return *made = (void *)(uintptr_t)(device + 1), SUCCESS; }
API int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API int cuCtxGetCurrent(void **current) { return *current = context, SUCCESS; }
API int cuCtxSetCurrent(void *made) { return context = made, SUCCESS; }
API int cuCtxPushCurrent_v2(void *made) { return context = made, SUCCESS; }
API int cuCtxPopCurrent_v2(void **current) { return *current = context, context = nullptr, SUCCESS; }
API int cuCtxDestroy_v2(void *) { return SUCCESS; }
API int cuGetErrorString(int error, const char **text) {
    static const std::map<int, const char *> texts = {
        {INVALID_VALUE, "invalid argument"}, {OUT_OF_MEMORY, "out of memory"},
        {INVALID_DEVICE, "invalid device ordinal"}, {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"}, {NOT_FOUND, "named symbol not found"},
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"}, {NOT_SUPPORTED, "operation not supported"}};
    auto found = texts.find(error);
    return *text = found == texts.end() ? "unknown error" : found->second, SUCCESS;
}

API int cuModuleLoadData(void **module, const void *image) {
    if (int error = in_context("cuModuleLoadData")) return error;
    Module *made = new Module{nullptr, (const char *)image, {}, {}};
    const std::string compiled = "SIMULATED ";
    if (made->ptx.compare(0, compiled.size(), compiled) == 0) {
        made->library = dlopen(made->ptx.c_str() + compiled.size(), RTLD_NOW | RTLD_LOCAL);
        if (!made->library) return refuse(NOT_FOUND, "%s", dlerror());
    }
    return *module = made, SUCCESS;
}
API int cuModuleLoad(void **, const char *path) { return refuse(NOT_SUPPORTED, "%s: files are not simulated", path); }
API int cuModuleUnload(void *) { return SUCCESS; }
API int cuModuleGetFunction(void **function, void *handle, const char *name) {
    if (int error = in_context("cuModuleGetFunction")) return error;
    Module *module = (Module *)handle;
    std::lock_guard<std::mutex> held(module->mutex);
    auto known = module->kernels.find(name);
    if (known == module->kernels.end()) {
        Kernel kernel;
        if (module->library) {
            auto run = dlsym(module->library, ("emulate_" + std::string(name)).c_str());
            auto count = (const unsigned *)dlsym(module->library, ("count_" + std::string(name)).c_str());
            if (!run || !count) return refuse(NOT_FOUND, "no kernel %s was compiled", name);
            kernel = {name, *count, (decltype(kernel.run))run};
        } else {
            const std::string entry = ".entry " + std::string(name) + "(";
            size_t at = module->ptx.find(entry);
            if (at == std::string::npos) return refuse(NOT_FOUND, "candle has no kernel %s", name);
            kernel = {name, parameters(module->ptx, at), candle_kernel(name)};
        }
        known = module->kernels.emplace(name, kernel).first;
    }
    return *function = &known->second, SUCCESS;
}
API int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                       unsigned threads_z, unsigned, void *stream, void **arguments, void **) {
    if (int error = in_context("cuLaunchKernel")) return error;
    if (int error = on_stream("cuLaunchKernel", stream)) return error;
    const Kernel *kernel = (const Kernel *)function;
    if (x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || threads == 0 || threads * threads_y * threads_z > 1024)
        return refuse(INVALID_VALUE, "%s: a grid of %u × %u × %u blocks of %u threads", kernel->name.c_str(), x, y, z,
                      threads);
    if (!kernel->run) return refuse(NOT_SUPPORTED, "candle's kernel %s is not simulated", kernel->name.c_str());
    std::vector<uint64_t> values(kernel->count);
    for (unsigned i = 0; i < kernel->count; i++) memcpy(&values[i], arguments[i], sizeof values[i]);
    enqueue(stream, [=]() mutable {
        const unsigned grid[] = {x, y, z};
        std::vector<void *> addresses;
        for (uint64_t &value : values) addresses.push_back(&value);
        kernel->run(addresses.data(), grid, threads);
    });
    return SUCCESS;
}
