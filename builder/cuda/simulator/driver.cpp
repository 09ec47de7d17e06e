// The driver: devices, memory, streams, modules, launches.

#include <condition_variable>
#include <deque>
#include <dlfcn.h>
#include <random>
#include <set>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "simulator.hpp"

namespace {

const size_t PAGE = 4096;
/// Vectors that kernels read may reach to the next multiple of this.
const size_t GRANULE = 16;
/// Bytes of an allocation that hold what is no number, at either end.
const size_t POISONED = 32 << 20;

size_t setting(const char *name, size_t otherwise) {
    const char *value = getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

int devices() { return (int)setting("SIMULATED_GPUS", 1); }
size_t total_memory() { return setting("SIMULATED_GPU_MB", 8192) << 20; }

struct Block {
    size_t bytes;
    char *map;
    size_t mapped;
    /// Whether a stream has been told to free it.
    bool condemned;
};

/// What a thread does, one after the other.
struct Stream {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    uint64_t given = 0, done = 0;

    Stream() {
        std::thread([this] { work(); }).detach();
    }
    void work() {
        std::mt19937 random((unsigned)(uintptr_t)this);
        size_t delay = setting("SIMULATED_GPU_DELAY_US", 0);
        for (;;) {
            std::unique_lock<std::mutex> held(mutex);
            changed.wait(held, [this] { return !queue.empty(); });
            auto next = std::move(queue.front());
            queue.pop_front();
            held.unlock();
            if (delay) usleep(random() % delay);
            next();
            held.lock();
            done++;
            changed.notify_all();
        }
    }
    void push(std::function<void()> next) {
        std::lock_guard<std::mutex> held(mutex);
        queue.push_back(std::move(next));
        given++;
        changed.notify_all();
    }
    uint64_t last() {
        std::lock_guard<std::mutex> held(mutex);
        return given;
    }
    void wait(uint64_t place) {
        std::unique_lock<std::mutex> held(mutex);
        changed.wait(held, [&] { return done >= place; });
    }
};

/// A place in a stream, where it has been recorded.
struct Event {
    Stream *stream;
    uint64_t place;
    void wait() const {
        if (stream) stream->wait(place);
    }
};

// Never destroyed: streams work until the process is gone.
std::mutex &lock = *new std::mutex;
/// By their first address.
auto &blocks = *new std::map<uintptr_t, Block>;
/// Page-locked memory of the host: its sizes.
auto &pinned = *new std::map<uintptr_t, size_t>;
auto &streams = *new std::set<void *>;
auto &events = *new std::set<void *>;
size_t used, peak;
thread_local void *context;

bool is_pinned(const void *address) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = pinned.upper_bound((uintptr_t)address);
    return after != pinned.begin() && (uintptr_t)address < std::prev(after)->first + std::prev(after)->second;
}

/// Memory that ends at a page that nobody may touch, and is full of what is no number.
int allocate(uint64_t *address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (bytes == 0) return refuse(INVALID_VALUE, "an allocation of no bytes");
    if (used + bytes > total_memory()) return OUT_OF_MEMORY;
    size_t rounded = (bytes + GRANULE - 1) / GRANULE * GRANULE;
    size_t pages = (rounded + PAGE - 1) / PAGE * PAGE;
    char *map = (char *)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(map + pages, PAGE, PROT_NONE);
    char *start = map + pages - rounded;
    // Of large ones, which are room to work in, the beginning and the end.
    size_t poisoned = std::min(rounded, POISONED);
    memset(start, 0xff, poisoned);
    memset(start + rounded - poisoned, 0xff, poisoned);
    blocks[(uintptr_t)start] = {bytes, map, pages + PAGE, false};
    used += bytes;
    peak = std::max(peak, used);
    *address = (uint64_t)start;
    return SUCCESS;
}

/// Frees memory once all that a stream was given is done; who uses it after that is ended by the system.
int release(uint64_t address, void *stream) {
    std::lock_guard<std::mutex> guard(lock);
    auto block = blocks.find(address);
    if (block == blocks.end() || block->second.condemned)
        return refuse(INVALID_VALUE, "%#lx is freed, but was not allocated", address);
    block->second.condemned = true;
    enqueue(stream, [address] {
        std::lock_guard<std::mutex> guard(lock);
        auto block = blocks.find(address);
        used -= block->second.bytes;
        munmap(block->second.map, block->second.mapped);
        blocks.erase(block);
    });
    return SUCCESS;
}

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

int in_context(const char *call) {
    static Counts counts;
    counts.add(call);
    return context ? SUCCESS : refuse(INVALID_CONTEXT, "%s in a thread without a context", call);
}

int on_stream(const char *call, void *stream) {
    std::lock_guard<std::mutex> guard(lock);
    return streams.count(stream) ? SUCCESS : refuse(INVALID_HANDLE, "%s on a stream that is none", call);
}

int copy(const char *call, void *stream, void *to, const void *from, size_t bytes, bool to_device, bool from_device) {
    if (int error = in_context(call)) return error;
    if (int error = on_stream(call, stream)) return error;
    if (to_device && !is_device_memory(to, bytes)) return refuse(INVALID_VALUE, "%s: beyond an allocation", call);
    if (from_device && !is_device_memory(from, bytes)) return refuse(INVALID_VALUE, "%s: beyond an allocation", call);
    if (!from_device && !is_pinned(from)) {
        // The driver has read ordinary memory when it returns.
        std::string kept((const char *)from, bytes);
        enqueue(stream, [to, kept] { memcpy(to, kept.data(), kept.size()); });
        return SUCCESS;
    }
    enqueue(stream, [to, from, bytes] { memmove(to, from, bytes); });
    if (!to_device && !is_pinned(to)) finish(stream);
    return SUCCESS;
}

int is_event(const char *call, void *event) {
    std::lock_guard<std::mutex> guard(lock);
    return events.count(event) ? SUCCESS : refuse(INVALID_HANDLE, "%s: no event", call);
}

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
    std::map<std::string, Kernel> kernels;
};

} // namespace

void enqueue(void *stream, std::function<void()> work) { ((Stream *)stream)->push(std::move(work)); }

void finish(void *stream) { ((Stream *)stream)->wait(((Stream *)stream)->last()); }

bool has_context() { return context; }

bool is_device_memory(const void *address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = blocks.upper_bound((uintptr_t)address);
    if (after == blocks.begin()) return false;
    auto block = std::prev(after);
    return !block->second.condemned && (uintptr_t)address + bytes <= block->first + block->second.bytes;
}

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
API int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = total_memory(), SUCCESS; }
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
API int cuCtxSynchronize() {
    if (int error = in_context("cuCtxSynchronize")) return error;
    std::unique_lock<std::mutex> guard(lock);
    auto all = streams;
    guard.unlock();
    for (void *stream : all) finish(stream);
    return SUCCESS;
}
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
API int cuGetErrorName(int error, const char **text) {
    return *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR", SUCCESS;
}

API int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) {
    if (int error = in_context("cuMemAllocAsync")) return error;
    if (int error = on_stream("cuMemAllocAsync", stream)) return error;
    if (int error = allocate(address, bytes); error != OUT_OF_MEMORY) return error;
    // What the stream frees before is there for what it takes after.
    finish(stream);
    return allocate(address, bytes);
}
API int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    if (int error = in_context("cuMemAlloc")) return error;
    return allocate(address, bytes);
}
API int cuMemFreeAsync(uint64_t address, void *stream) {
    if (int error = in_context("cuMemFreeAsync")) return error;
    if (int error = on_stream("cuMemFreeAsync", stream)) return error;
    return release(address, stream);
}
API int cuMemFree_v2(uint64_t address) {
    if (int error = cuCtxSynchronize()) return error;
    static Stream &own = *new Stream;
    if (int error = release(address, &own)) return error;
    return finish(&own), SUCCESS;
}
API int cuMemHostAlloc(void **address, size_t bytes, unsigned) {
    if (int error = in_context("cuMemHostAlloc")) return error;
    if (!(*address = malloc(bytes))) return OUT_OF_MEMORY;
    std::lock_guard<std::mutex> guard(lock);
    return pinned[(uintptr_t)*address] = bytes, SUCCESS;
}
API int cuMemFreeHost(void *address) {
    if (int error = in_context("cuMemFreeHost")) return error;
    std::lock_guard<std::mutex> guard(lock);
    pinned.erase((uintptr_t)address);
    return free(address), SUCCESS;
}
API int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (int error = in_context("cuMemGetInfo")) return error;
    std::lock_guard<std::mutex> guard(lock);
    *total = total_memory();
    return *free = *total - used, SUCCESS;
}
API int cuDeviceGetMemPool(void **pool, int) { return *pool = &blocks, SUCCESS; }
API int cuMemPoolSetAttribute(void *, int attribute, void *value) {
    std::lock_guard<std::mutex> guard(lock);
    if (attribute == 8) peak = *(uint64_t *)value ? peak : used;
    return SUCCESS;
}
API int cuMemPoolGetAttribute(void *, int attribute, void *value) {
    std::lock_guard<std::mutex> guard(lock);
    switch (attribute) {
    case 5: // reserved now
    case 7: *(uint64_t *)value = used; break;
    case 6:
    case 8: *(uint64_t *)value = peak; break;
    default: return refuse(NOT_SUPPORTED, "attribute %d of a pool is not simulated", attribute);
    }
    return SUCCESS;
}
API int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    return copy("cuMemcpyHtoDAsync", stream, (void *)to, from, bytes, true, false);
}
API int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    return copy("cuMemcpyDtoHAsync", stream, to, (void *)from, bytes, false, true);
}
API int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
    if (int error = cuCtxSynchronize()) return error;
    if (!is_device_memory((void *)to, bytes)) return refuse(INVALID_VALUE, "cuMemcpyHtoD: beyond an allocation");
    return memcpy((void *)to, from, bytes), SUCCESS;
}
API int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
    if (int error = cuCtxSynchronize()) return error;
    if (!is_device_memory((void *)from, bytes)) return refuse(INVALID_VALUE, "cuMemcpyDtoH: beyond an allocation");
    return memcpy(to, (void *)from, bytes), SUCCESS;
}
API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    return copy("cuMemcpyDtoDAsync", stream, (void *)to, (void *)from, bytes, true, true);
}
API int cuMemcpyPeerAsync(uint64_t to, void *, uint64_t from, void *, size_t bytes, void *stream) {
    return copy("cuMemcpyPeerAsync", stream, (void *)to, (void *)from, bytes, true, true);
}
API int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream) {
    if (int error = in_context("cuMemsetD8Async")) return error;
    if (int error = on_stream("cuMemsetD8Async", stream)) return error;
    if (!is_device_memory((void *)to, bytes)) return refuse(INVALID_VALUE, "cuMemsetD8Async: beyond an allocation");
    enqueue(stream, [=] { memset((void *)to, value, bytes); });
    return SUCCESS;
}

API int cuStreamCreate(void **stream, unsigned) {
    if (int error = in_context("cuStreamCreate")) return error;
    std::lock_guard<std::mutex> guard(lock);
    return streams.insert(*stream = new Stream), SUCCESS;
}
API int cuStreamDestroy_v2(void *stream) {
    if (int error = on_stream("cuStreamDestroy", stream)) return error;
    // What it was given is still done.
    std::lock_guard<std::mutex> guard(lock);
    return streams.erase(stream), SUCCESS;
}
API int cuStreamSynchronize(void *stream) {
    if (int error = in_context("cuStreamSynchronize")) return error;
    if (int error = on_stream("cuStreamSynchronize", stream)) return error;
    return finish(stream), SUCCESS;
}
API int cuStreamIsCapturing(void *, int *status) { return *status = 0, SUCCESS; }
API int cuEventCreate(void **event, unsigned) {
    if (int error = in_context("cuEventCreate")) return error;
    std::lock_guard<std::mutex> guard(lock);
    return events.insert(*event = new Event{nullptr, 0}), SUCCESS;
}
API int cuEventDestroy_v2(void *event) {
    std::lock_guard<std::mutex> guard(lock);
    return events.erase(event) ? SUCCESS : refuse(INVALID_HANDLE, "cuEventDestroy: no event");
}
API int cuEventRecord(void *event, void *stream) {
    if (int error = in_context("cuEventRecord")) return error;
    if (int error = on_stream("cuEventRecord", stream)) return error;
    if (int error = is_event("cuEventRecord", event)) return error;
    return *(Event *)event = {(Stream *)stream, ((Stream *)stream)->last()}, SUCCESS;
}
API int cuEventSynchronize(void *event) {
    if (int error = in_context("cuEventSynchronize")) return error;
    if (int error = is_event("cuEventSynchronize", event)) return error;
    return ((Event *)event)->wait(), SUCCESS;
}
API int cuEventElapsedTime_v2(float *milliseconds, void *, void *) { return *milliseconds = 1, SUCCESS; }
API int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    if (int error = on_stream("cuStreamWaitEvent", stream)) return error;
    if (int error = is_event("cuStreamWaitEvent", event)) return error;
    // As it has been recorded by now.
    enqueue(stream, [recorded = *(Event *)event] { recorded.wait(); });
    return SUCCESS;
}

API int cuModuleLoadData(void **module, const void *image) {
    if (int error = in_context("cuModuleLoadData")) return error;
    Module *made = new Module{nullptr, (const char *)image, {}};
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
    std::lock_guard<std::mutex> guard(lock);
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
