// cuBLAS's products, cuRAND's numbers and NCCL's sums.

#include <atomic>
#include <fcntl.h>
#include <random>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "simulator.hpp"

// cuBLAS: column after column, as in Fortran.

namespace {

enum : int { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum : int { COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };

double element(const void *matrix, int type, size_t i, bool rounds) {
    switch (type) {
    case F32: return rounds ? tf32(((const float *)matrix)[i]) : ((const float *)matrix)[i];
    case F64: return ((const double *)matrix)[i];
    case F16: return (float)((const f16 *)matrix)[i];
    default: return (float)((const bf16 *)matrix)[i];
    }
}

void set(void *matrix, int type, size_t i, double value) {
    switch (type) {
    case F32: ((float *)matrix)[i] = (float)value; break;
    case F64: ((double *)matrix)[i] = value; break;
    case F16: ((f16 *)matrix)[i] = (float)value; break;
    default: ((bf16 *)matrix)[i] = (float)value;
    }
}

size_t width(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

struct Matrix {
    void *address;
    int type, rows, columns, leading;
    long long stride;
    /// Whether all of `count` of them lie in one allocation.
    bool fits(int count) const {
        size_t last = (size_t)(count - 1) * stride + (size_t)(columns - 1) * leading + rows;
        return leading >= rows && is_device_memory(address, last * width(type));
    }
};

int multiply(void *handle, bool ta, bool tb, int m, int n, int k, double alpha, Matrix a, Matrix b, double beta, Matrix c, int count,
             bool rounds) {
    const int INVALID = 7;
    if (!has_context()) return refuse(INVALID, "a product in a thread without a context");
    if (!a.fits(count) || !b.fits(count) || !c.fits(count)) return refuse(INVALID, "a product beyond an allocation");
    enqueue(((Handle *)handle)->stream, [=] {
        for (int batch = 0; batch < count; batch++)
            for (int j = 0; j < n; j++)
                for (int i = 0; i < m; i++) {
                    double sum = 0;
                    for (int l = 0; l < k; l++) {
                        size_t at = (size_t)batch * a.stride + (ta ? (size_t)i * a.leading + l : (size_t)l * a.leading + i);
                        size_t bt = (size_t)batch * b.stride + (tb ? (size_t)l * b.leading + j : (size_t)j * b.leading + l);
                        sum += element(a.address, a.type, at, rounds) * element(b.address, b.type, bt, rounds);
                    }
                    size_t at = (size_t)batch * c.stride + (size_t)j * c.leading + i;
                    set(c.address, c.type, at, alpha * sum + (beta == 0 ? 0 : beta * element(c.address, c.type, at, false)));
                }
    });
    return SUCCESS;
}

} // namespace

API int cublasCreate_v2(void **handle) { return *handle = new Handle{}, has_context() ? 0 : 1; }
API int cublasDestroy_v2(void *handle) { return delete (Handle *)handle, SUCCESS; }
API int cublasSetStream_v2(void *handle, void *stream) { return ((Handle *)handle)->stream = stream, SUCCESS; }
API int cublasGemmStridedBatchedEx(void *h, int ta, int tb, int m, int n, int k, const void *alpha, void *a, int at,
                                   int lda, long long sa, void *b, int bt, int ldb, long long sb, const void *beta,
                                   void *c, int ct, int ldc, long long sc, int count, int compute, int) {
    if (compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32)
        return refuse(15, "a product in arithmetic %d is not simulated", compute);
    Matrix left = {a, at, ta ? k : m, ta ? m : k, lda, sa}, right = {b, bt, tb ? n : k, tb ? k : n, ldb, sb};
    return multiply(h, ta, tb, m, n, k, *(const float *)alpha, left, right, *(const float *)beta,
                    {c, ct, m, n, ldc, sc}, count, compute == COMPUTE_32F_FAST_TF32);
}
API int cublasDgemmStridedBatched(void *h, int ta, int tb, int m, int n, int k, const double *alpha, void *a, int lda,
                                  long long sa, void *b, int ldb, long long sb, const double *beta, void *c, int ldc,
                                  long long sc, int count) {
    Matrix left = {a, F64, ta ? k : m, ta ? m : k, lda, sa}, right = {b, F64, tb ? n : k, tb ? k : n, ldb, sb};
    return multiply(h, ta, tb, m, n, k, *alpha, left, right, *beta, {c, F64, m, n, ldc, sc}, count, false);
}

// cuRAND.

namespace {
struct Generator : Handle {
    std::mt19937_64 engine;
};

template <typename T, typename D> int draw(void *handle, T *to, size_t count, D distribution) {
    if (!is_device_memory(to, count * sizeof(T))) return refuse(102, "random numbers beyond an allocation");
    Generator *generator = (Generator *)handle;
    enqueue(generator->stream, [=]() mutable {
        for (size_t i = 0; i < count; i++) to[i] = distribution(generator->engine);
    });
    return SUCCESS;
}
} // namespace

API int curandCreateGenerator(void **generator, int) { return *generator = new Generator, SUCCESS; }
API int curandDestroyGenerator(void *generator) { return delete (Generator *)generator, SUCCESS; }
API int curandSetStream(void *generator, void *stream) { return ((Generator *)generator)->stream = stream, SUCCESS; }
API int curandSetPseudoRandomGeneratorSeed(void *generator, unsigned long long seed) {
    return ((Generator *)generator)->engine.seed(seed), SUCCESS;
}
API int curandGenerateUniform(void *g, float *to, size_t count) {
    return draw(g, to, count, std::uniform_real_distribution<float>(0, 1));
}
API int curandGenerateUniformDouble(void *g, double *to, size_t count) {
    return draw(g, to, count, std::uniform_real_distribution<double>(0, 1));
}
API int curandGenerateNormal(void *g, float *to, size_t count, float mean, float deviation) {
    return draw(g, to, count, std::normal_distribution<float>(mean, deviation));
}
API int curandGenerateNormalDouble(void *g, double *to, size_t count, double mean, double deviation) {
    return draw(g, to, count, std::normal_distribution<double>(mean, deviation));
}

// NCCL, between processes of a host, through memory that they share. Ranks whose sums come in different orders are ended.

namespace {

/// Bytes that a rank sums at a time.
const size_t SHARED = 64 << 20;

struct Id {
    char name[128];
};

struct Shared {
    std::atomic<int> arrived, round;
    /// What each rank asks for.
    struct {
        size_t count;
        int type;
    } asked[64];
    char values[];
};

struct Communicator {
    Shared *shared;
    int ranks, rank;
    std::string name;
    std::atomic<bool> aborted = false;

    /// Waits for all ranks; false where the communicator is ended meanwhile.
    bool meet() {
        int round = shared->round;
        if (++shared->arrived == ranks) {
            shared->arrived = 0;
            shared->round++;
        } else
            while (shared->round == round && !aborted) sched_yield();
        return !aborted;
    }
    char *part(int of) { return shared->values + (size_t)of * SHARED; }
};

template <typename T> void sum(Communicator &c, const T *from, T *to, size_t count) {
    const size_t most = SHARED / sizeof(T);
    for (size_t start = 0; start < count || start == 0; start += most) {
        size_t length = std::min(most, count - start);
        memcpy(c.part(c.rank), from + start, length * sizeof(T));
        if (!c.meet()) return;
        for (size_t i = 0; i < length; i++) {
            T total = 0;
            for (int rank = 0; rank < c.ranks; rank++) total += ((T *)c.part(rank))[i];
            to[start + i] = total;
        }
        if (!c.meet()) return;
    }
}

} // namespace

API int ncclGetUniqueId(Id *id) {
    memset(id, 0, sizeof *id);
    snprintf(id->name, sizeof id->name, "/simulated-nccl-%d-%lx", getpid(), (long)random());
    return SUCCESS;
}
API int ncclCommInitRank(void **made, int ranks, Id id, int rank) {
    const int INVALID = 4;
    if (!has_context() || ranks > 64) return INVALID;
    int file = shm_open(id.name, O_CREAT | O_RDWR, 0600);
    size_t bytes = sizeof(Shared) + ranks * SHARED;
    if (file < 0 || ftruncate(file, bytes)) return refuse(INVALID, "no shared memory");
    void *map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED) return refuse(INVALID, "no shared memory");
    Communicator *c = new Communicator{(Shared *)map, ranks, rank, id.name};
    c->meet();
    if (rank == 0) shm_unlink(id.name);
    return *made = c, SUCCESS;
}
API int ncclAllReduce(const void *from, void *to, size_t count, int type, int operation, void *handle,
                      void *stream) {
    const int INVALID = 4;
    Communicator &c = *(Communicator *)handle;
    size_t bytes = count * (type == 8 ? 8 : 4);
    if ((type != 7 && type != 8) || operation != 0) return refuse(INVALID, "a sum of type %d is not simulated", type);
    if (!is_device_memory(from, bytes) || !is_device_memory(to, bytes))
        return refuse(INVALID, "a sum beyond an allocation");
    if (!has_context()) return refuse(INVALID, "a sum in a thread without a context");
    enqueue(stream, [=, &c] {
        c.shared->asked[c.rank].count = count;
        c.shared->asked[c.rank].type = type;
        if (!c.meet()) return;
        for (int rank = 0; rank < c.ranks; rank++)
            if (c.shared->asked[rank].count != count || c.shared->asked[rank].type != type) {
                refuse(INVALID, "rank %d sums %zu numbers, rank %d %zu: other sums", c.rank, count, rank,
                       c.shared->asked[rank].count);
                abort();
            }
        if (type == 8) sum(c, (const double *)from, (double *)to, count);
        else sum(c, (const float *)from, (float *)to, count);
    });
    return SUCCESS;
}
// Sums that are under way or still to come end without a result. They use the communicator, so it stays.
API int ncclCommAbort(void *handle) { return ((Communicator *)handle)->aborted = true, SUCCESS; }

// The runtime, which candle's quantised kernels register with; Tallow launches none of those.

API void **__cudaRegisterFatBinary(void *) { return (void **)malloc(sizeof(void *)); }
API void __cudaRegisterFatBinaryEnd(void **) {}
API void __cudaUnregisterFatBinary(void **handle) { free(handle); }
API void __cudaRegisterFunction() {}
API void __cudaRegisterVar() {}
API unsigned __cudaPushCallConfiguration() { return NOT_SUPPORTED; }
API int __cudaPopCallConfiguration() { return NOT_SUPPORTED; }
API int __cudaGetKernel() { return NOT_SUPPORTED; }
API int __cudaLaunchKernel_ptsz() { return NOT_SUPPORTED; }
API int cudaFuncSetAttribute() { return NOT_SUPPORTED; }
API int cudaGetDevice() { return NOT_SUPPORTED; }
