#pragma once

#include <atomic>
#include <functional>

#include "bindings/bindings.h"

namespace rolegrad::bindings {

/// Runs work(stop) on the engine's stream, after the work given before it (never on libuv's pool), and then
/// complete(env) on it, whose value the promise gets. Returns { promise, abort() }: abort sets `stop`, which the work
/// looks at and answers with an exception. An exception of either rejects the promise. The event loop stays alive until
/// then; a closing environment stops the work and waits for it.
Napi::Object run_async(Napi::Env env, std::function<void(const std::atomic<bool>& stop)> work,
                       std::function<Napi::Value(Napi::Env)> complete);

}  // namespace rolegrad::bindings
