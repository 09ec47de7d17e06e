// What the parts of the driver share.

#pragma once
#include "simulator.hpp"

/// A number in the environment.
size_t setting(const char *name, size_t otherwise);

/// Counts a call, and refuses it in a thread without a context.
int in_context(const char *call);

/// Refuses what is no stream.
int on_stream(const char *call, void *stream);

/// Waits for all streams.
API int cuCtxSynchronize();
