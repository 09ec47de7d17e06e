// Memory of the device, and page-locked memory of the host.

#include <sys/mman.h>

#include "driver.hpp"

namespace {

const size_t PAGE = 4096;
/// Vectors that kernels read may reach to the next multiple of this.
const size_t GRANULE = 16;
/// Bytes of an allocation that hold what is no number, at either end.
const size_t POISONED = 32 << 20;

size_t total_memory() { return setting("SIMULATED_GPU_MB", 8192) << 20; }

struct Block {
    size_t bytes;
    char *map;
    size_t mapped;
    /// Whether a stream has been told to free it.
    bool condemned;
};

// Never destroyed: streams work until the process is gone.
std::mutex &lock = *new std::mutex;
/// By their first address.
auto &blocks = *new std::map<uintptr_t, Block>;
/// Page-locked memory of the host: its sizes.
auto &pinned = *new std::map<uintptr_t, size_t>;
size_t used, peak;

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

/// Marks memory as no longer anybody's.
int condemn(uint64_t address) {
    std::lock_guard<std::mutex> guard(lock);
    auto block = blocks.find(address);
    if (block == blocks.end() || block->second.condemned)
        return refuse(INVALID_VALUE, "%#lx is freed, but was not allocated", address);
    block->second.condemned = true;
    return SUCCESS;
}

/// Gives it back; who uses it after that is ended by the system.
void give_back(uint64_t address) {
    std::lock_guard<std::mutex> guard(lock);
    auto block = blocks.find(address);
    used -= block->second.bytes;
    munmap(block->second.map, block->second.mapped);
    blocks.erase(block);
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

} // namespace

bool is_device_memory(const void *address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    auto after = blocks.upper_bound((uintptr_t)address);
    if (after == blocks.begin()) return false;
    auto block = std::prev(after);
    return !block->second.condemned && (uintptr_t)address + bytes <= block->first + block->second.bytes;
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
    if (int error = condemn(address)) return error;
    enqueue(stream, [address] { give_back(address); });
    return SUCCESS;
}
API int cuMemFree_v2(uint64_t address) {
    if (int error = cuCtxSynchronize()) return error;
    if (int error = condemn(address)) return error;
    return give_back(address), SUCCESS;
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
API int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = total_memory(), SUCCESS; }
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
