#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "bindings/bindings.h"

namespace rolegrad::bindings {

/// Runs work(stop) on the engine's stream, after the work given before it (never on libuv's pool), and then
/// complete(env) on the JavaScript thread, whose value the promise gets. Returns { promise, abort() }: abort takes work
/// that has not begun off the stream, and sets `stop` otherwise, which the executor looks at before every task: the
/// promise rejects with ERR_ABORTED. An exception of either rejects the promise; where memory ran out the message names
/// what was `asked` ("a step of 512 tokens"). The event loop stays alive until then; a closing environment stops the
/// work and waits for it.
///
/// What `work` captures is destroyed on the stream's thread (or where it is taken back) before the promise settles.
Napi::Object run_async(Napi::Env env, std::function<void(const std::atomic<bool>& stop)> work,
                       std::function<Napi::Value(Napi::Env)> complete, std::string asked = {});

}  // namespace rolegrad::bindings
