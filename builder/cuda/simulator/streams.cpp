// Streams, a thread each, and events.

#include <condition_variable>
#include <deque>
#include <random>
#include <set>
#include <thread>
#include <unistd.h>

#include "driver.hpp"

namespace {

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
auto &streams = *new std::set<void *>;
auto &events = *new std::set<void *>;

int is_event(const char *call, void *event) {
    std::lock_guard<std::mutex> guard(lock);
    return events.count(event) ? SUCCESS : refuse(INVALID_HANDLE, "%s: no event", call);
}

} // namespace

int on_stream(const char *call, void *stream) {
    std::lock_guard<std::mutex> guard(lock);
    return streams.count(stream) ? SUCCESS : refuse(INVALID_HANDLE, "%s on a stream that is none", call);
}

void enqueue(void *stream, std::function<void()> work) { ((Stream *)stream)->push(std::move(work)); }

void finish(void *stream) { ((Stream *)stream)->wait(((Stream *)stream)->last()); }

API int cuCtxSynchronize() {
    if (int error = in_context("cuCtxSynchronize")) return error;
    std::unique_lock<std::mutex> guard(lock);
    auto all = streams;
    guard.unlock();
    for (void *stream : all) finish(stream);
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
API int cuStreamWaitEvent(void *stream, void *event, unsigned) {
    if (int error = on_stream("cuStreamWaitEvent", stream)) return error;
    if (int error = is_event("cuStreamWaitEvent", event)) return error;
    // As it has been recorded by now.
    enqueue(stream, [recorded = *(Event *)event] { recorded.wait(); });
    return SUCCESS;
}
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
